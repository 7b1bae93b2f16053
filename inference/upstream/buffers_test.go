package upstream

import "testing"

// Few connections read much at once, and thousands take little.
func TestBuffers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ connections, read, write int }{
		{1, 16 << 10, 4 << 10}, {DefaultMaxInFlight, 16 << 10, 4 << 10}, {512, 16 << 10, 4 << 10}, {1000, 8 << 10, 2 << 10},
		{2000, 4 << 10, 1 << 10}, {100_000, 4 << 10, 1 << 10},
	} {
		if read, write := buffers(tt.connections); read != tt.read || write != tt.write {
			t.Errorf("of %d connections each reads %d and writes %d bytes, want %d and %d", tt.connections, read, write, tt.read, tt.write)
		}
	}
}
