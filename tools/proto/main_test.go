package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGeneratedCodeIsUpToDate(t *testing.T) {
	const root = "../.."
	files, err := generate(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("nothing was generated")
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Errorf("%v: run make proto", err)
		} else if string(got) != want {
			t.Errorf("%s is not what schemas/proto says: run make proto", name)
		}
	}
	kept, err := filepath.Glob(filepath.Join(root, "internal", "pb", "*", "*"))
	if err != nil || len(kept) != len(files) {
		t.Errorf("internal/pb holds %d files, %d are generated (%v): remove what no .proto makes", len(kept), len(files), err)
	}
}
