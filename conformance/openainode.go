package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// checkOpenAINode runs openai.mjs with one version of the SDK.
func checkOpenAINode(ctx context.Context, r *report, s *server, node, sdk string) {
	checkNode(ctx, r, node, "openai.mjs", sdk, s.http+"/v1")
}

// checkNode runs a script, which prints a line per check: its name, and after a tab the reason if it failed.
func checkNode(ctx context.Context, r *report, node, script string, args ...string) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	command := exec.CommandContext(ctx, node, append([]string{script}, args...)...)
	var output, problems bytes.Buffer
	command.Stdout, command.Stderr = &output, &problems
	err := command.Run()
	for lines := bufio.NewScanner(&output); lines.Scan(); {
		name, reason, failed := strings.Cut(lines.Text(), "\t")
		if failed {
			r.add(name, errors.New(reason))
		} else {
			r.add(name, nil)
		}
	}
	if err != nil {
		r.add(strings.Join(append([]string{script}, args...), " ")+" runs to its end", fmt.Errorf("%w: %s", err, &problems))
	}
}
