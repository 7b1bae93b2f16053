package bus_test

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// TestMain runs more tests at a time than there are processors: most of them wait for a lease or for a try to time out.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel != nil {
		if n, err := strconv.Atoi(parallel.Value.String()); err != nil || n < 16 {
			if err := parallel.Value.Set("16"); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	m.Run()
}
