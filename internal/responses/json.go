package responses

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// appendString writes s as a JSON string on one line.
func appendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}

// appendMember writes `,"name":raw`. The name needs no escaping.
func appendMember(dst []byte, name, raw string) []byte {
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return append(dst, raw...)
}

// oneLine is JSON without line breaks. In JSON they can only stand between tokens.
func oneLine(data []byte) []byte {
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') < 0 {
		return data
	}
	var line bytes.Buffer
	if json.Compact(&line, data) != nil {
		return data // it is not JSON, and nobody takes it for some
	}
	return line.Bytes()
}

// given reports whether a member is there and says something.
func given(v gjson.Result) bool { return v.Exists() && v.Type != gjson.Null }

func invalid(param, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidValue, "%s %s", param, fmt.Sprintf(format, args...)).WithParam(param)
}

func unsupported(param, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.CodeUnsupported, "%s %s", param, fmt.Sprintf(format, args...)).WithParam(param)
}

func element(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
