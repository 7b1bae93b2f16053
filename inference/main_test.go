package inference_test

import (
	"testing"

	"github.com/weir-llm/weir/internal/bus/bustest"
)

func TestMain(m *testing.M) {
	bustest.Parallel()
	m.Run()
}
