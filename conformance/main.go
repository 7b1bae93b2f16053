// Command conformance runs real clients against a real `weir serve`: the OpenAI and Anthropic SDKs for Go and Node, the
// Vercel AI SDK, the nats CLI, the NATS client for Node, and curl. run.sh builds and pins what it needs. Each check prints
// one line, and the last line counts them.
//
// What the clients prove together: an SDK that knows nothing of Weir gets its answers, streamed and not, and its errors, on
// each surface, Responses and Messages included, whichever protocol the model server speaks; a plain NATS client that
// publishes a request sees its frames live and finds the same frames in the stream afterwards; a tenant with nothing but an
// API key is served over NATS; a stream that was cut goes on from Last-Event-ID without a gap or a duplicate; a real engine,
// llama.cpp with a model of noise, streams, answers whole, runs several at once, and stops when it is told to. Besides, the
// parser of AsyncAPI reads schemas/asyncapi.yaml.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// runLimit bounds a whole run. It takes a minute, and longer on a machine that is busy.
const runLimit = 15 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.SetOutput(stderr)
	weir := flags.String("weir", ".bin/weir", "the weir program")
	nats := flags.String("nats", ".bin/nats", "the nats CLI")
	node22 := flags.String("node22", "node", "Node 22 or later, for openai 7")
	suite := flags.String("openai-go-tests", ".bin/openai-go-tests", "the tests of openai-go, compiled")
	node := flags.String("node", "node", "Node 20 or later, for openai 6")
	engine := flags.String("engine", "engine/server.mjs", "the page of HTTP over llama.cpp; empty leaves its checks out")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "weir-conformance-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := startServer(ctx, *weir, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	results := &report{out: stdout}
	checkOpenAIGo(ctx, results, s)
	if err := checkScripted(ctx, results, *weir, dir, *node22, *node, *suite); err != nil {
		return err
	}
	checkOpenAINode(ctx, results, s, *node22, "openai")
	checkOpenAINode(ctx, results, s, *node, "openai-6")
	checkResponses(ctx, results, s, natsCLI{program: *nats, server: s}, *weir, *node22)
	checkNATSCLI(ctx, results, s, natsCLI{program: *nats, server: s})
	checkResume(ctx, results, s)
	if err := checkAnthropic(ctx, results, *weir, dir, *node22, s); err != nil {
		return err
	}
	if err := checkNATSService(ctx, results, *weir, *nats, *node, dir); err != nil {
		return err
	}
	if err := checkEngine(ctx, results, *weir, *node, *engine, dir); err != nil {
		return err
	}
	checkAsyncAPI(ctx, results, *node)
	checkLimits(ctx, results, s)
	if err := checkTLS(ctx, results, *weir, *nats, *node, dir); err != nil {
		return err
	}
	return results.close(s)
}
