package schemas

import "strings"

// MaxModelTokenBytes is the longest encoded model name.
const MaxModelTokenBytes = 128

const upperHex = "0123456789ABCDEF"

// EncodeModel turns a model name into one subject token: [A-Za-z0-9_-] stands for itself and any other byte is =XX, so
// `gpt-4.1` is `gpt-4=2E1`. The token never holds a wildcard, a dot or white space and is never empty.
func EncodeModel(model string) (string, error) {
	if model == "" {
		return "", Errorf(CodeMissingParameter, "model is empty: name one of the models that GET /v1/models lists").WithParam("model")
	}
	size := len(model)
	for i := range len(model) {
		if !plain(model[i]) {
			size += 2
		}
	}
	if size > MaxModelTokenBytes {
		return "", Errorf(CodeInvalidValue, "model name is too long: %d bytes once encoded, at most %d are allowed", size, MaxModelTokenBytes).WithParam("model")
	}
	if size == len(model) {
		return model, nil
	}
	var token strings.Builder
	token.Grow(size)
	for i := range len(model) {
		if c := model[i]; plain(c) {
			token.WriteByte(c)
		} else {
			token.WriteByte('=')
			token.WriteByte(upperHex[c>>4])
			token.WriteByte(upperHex[c&15])
		}
	}
	return token.String(), nil
}

// DecodeModel is the inverse of [EncodeModel]. It refuses every token that EncodeModel does not write, so that a model
// has exactly one token.
func DecodeModel(token string) (string, error) {
	if token == "" || len(token) > MaxModelTokenBytes {
		return "", Errorf(CodeInvalidValue, "model token has %d bytes: 1 to %d are allowed", len(token), MaxModelTokenBytes).WithParam("model")
	}
	var model strings.Builder
	model.Grow(len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case plain(c):
			model.WriteByte(c)
		case c == '=' && i+2 < len(token):
			high, low := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
			if high < 0 || low < 0 || plain(byte(high<<4|low)) {
				return "", badModelToken(token)
			}
			model.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			return "", badModelToken(token)
		}
	}
	return model.String(), nil
}

func badModelToken(token string) error {
	return Errorf(CodeInvalidValue, "model token %q is not encoded: write every byte but A-Z a-z 0-9 _ - as =XX (gpt-4.1 is gpt-4=2E1)", token).WithParam("model")
}
