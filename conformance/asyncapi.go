package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// checkAsyncAPI lets the reference parser read schemas/asyncapi.yaml with everything that it refers to.
func checkAsyncAPI(ctx context.Context, r *report, node string) {
	r.check(ctx, "@asyncapi/parser: schemas/asyncapi.yaml is a valid AsyncAPI 3 document", func(ctx context.Context) error {
		return parseAsyncAPI(ctx, node, filepath.Join("..", "schemas", "asyncapi.yaml"))
	})
}

func parseAsyncAPI(ctx context.Context, node, file string) error {
	out, err := exec.CommandContext(ctx, node, "asyncapi.mjs", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
