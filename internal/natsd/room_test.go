package natsd

import "testing"

func TestRoomEndsAtTheReserve(t *testing.T) {
	t.Parallel()
	if err := enoughRoom("/data", minFreeBytes); err != nil {
		t.Errorf("at the reserve: %v", err)
	}
	if err := enoughRoom("/data", minFreeBytes-1); err == nil {
		t.Error("below the reserve there should be no room")
	}
	if err := startServer(t, Config{Dir: t.TempDir()}).Room(); err != nil {
		t.Errorf("a test's disk: %v", err)
	}
}
