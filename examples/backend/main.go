// Command backend puts a model behind Weir: a server of llm.backend.v1, the protocol of a backend with `protocol: grpc`.
// model.go is what you replace; README.md says how.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address to serve on")
	name := flag.String("model", "echo", "name of the model")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, New(*name, Echo)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then finishes the answers that have begun.
func run(ctx context.Context, address string, server *Server) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "serving llm.backend.v1 on", listener.Addr())
	return server.Serve(ctx, listener)
}
