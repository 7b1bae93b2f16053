package bustest

import (
	"flag"
	"fmt"
	"os"
	"strconv"
)

// sideBySide is how many tests run at a time: what takes their time is to wait for leases and for servers that start.
const sideBySide = 8

// Parallel has more tests of a package run at a time than there are processors, unless -parallel asks for more still. It is for
// TestMain, before the tests run.
func Parallel() {
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	if n, err := strconv.Atoi(parallel.Value.String()); err == nil && n >= sideBySide {
		return
	}
	if err := parallel.Value.Set(strconv.Itoa(sideBySide)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
