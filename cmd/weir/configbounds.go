package main

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A key that holds a number, a time or an amount has its bounds in the tags min and max of its field, in the words of the
// file; one that holds a word or one of a few numbers has them in the tag enum. The check of a file, its JSON Schema and
// the tests of both read these tags, so that they cannot differ.

// bounds are the least and the most that a key may hold.
type bounds struct {
	least, most         int64
	leastText, mostText string
}

// boundsOf are those of a key, or of each item of a list; ok is false when it has none.
func boundsOf(typ reflect.Type, tag reflect.StructTag) (b bounds, ok bool) {
	b.leastText, ok = tag.Lookup("min")
	if !ok {
		return b, false
	}
	b.mostText = tag.Get("max")
	b.least, b.most = boundary(base(typ), b.leastText), boundary(base(typ), b.mostText)
	return b, true
}

// base is the type of one value.
func base(typ reflect.Type) reflect.Type {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	return typ
}

// boundary reads a bound. It panics on one that cannot be read, which is a mistake in this program.
func boundary(typ reflect.Type, text string) int64 {
	v := reflect.New(typ).Elem()
	if err := setScalar(v, text); err != nil {
		panic("bound " + text + " of a " + typ.String() + ": " + err.Error())
	}
	return v.Int()
}

// checkValue checks one value that was written against the bounds or the words of its key.
func (f *findings) checkValue(key string, tag reflect.StructTag, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	optional := ""
	if strings.HasSuffix(tag.Get("yaml"), ",omitempty") {
		optional = ", or leave it out"
	}
	if b, ok := boundsOf(v.Type(), tag); ok && v.CanInt() && (v.Int() < b.least || v.Int() > b.most) {
		f.unreadable(f.from[key], key, "use "+b.leastText+" to "+b.mostText+optional, "%v is out of range", v.Interface())
	}
	if words := wordsOf(tag); words != nil && !oneOf(words, v) {
		f.unreadable(f.from[key], key, "use "+either(words)+optional, "%s is not known", quoted(v))
	}
}

// wordsOf are those that a key may hold; nil when it may hold any.
func wordsOf(tag reflect.StructTag) []string {
	enum, ok := tag.Lookup("enum")
	if !ok {
		return nil
	}
	return strings.Split(enum, ",")
}

func oneOf(words []string, v reflect.Value) bool {
	for _, word := range words {
		if v.CanInt() && strconv.FormatInt(v.Int(), 10) == word || v.Kind() == reflect.String && v.String() == word {
			return true
		}
	}
	return false
}

func quoted(v reflect.Value) string {
	if v.CanInt() {
		return strconv.FormatInt(v.Int(), 10)
	}
	return strconv.Quote(v.String())
}

// Bounds that are checked by hand, because what they bound is one of several forms of a value.
const (
	maxHedgeAfter = time.Hour
	minWindow     = time.Minute
	maxWindow     = 366 * 24 * time.Hour // the balances of a window are kept until it has ended
)
