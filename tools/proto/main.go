// Command proto writes the Go code of schemas/proto into internal/pb, with the versions that tools/go.mod pins and
// nothing that has to be installed:
//
//	cd tools && go run ./proto -root ..
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/weir-llm/weir"

func main() {
	root := flag.String("root", "..", "folder of the product's go.mod")
	flag.Parse()
	files, err := generate(context.Background(), *root)
	if err == nil {
		err = write(*root, files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proto:", err)
		os.Exit(1)
	}
}

// generate returns the text of every generated file by its path from the root.
func generate(ctx context.Context, root string) (map[string]string, error) {
	source := filepath.Join(root, "schemas", "proto")
	names, err := sources(source)
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{source}},
		SourceInfoMode: protocompile.SourceInfoStandard, // comments become those of the code
	}
	compiled, err := compiler.Compile(ctx, names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: proto.String("module=" + module)}
	for _, file := range compiled {
		request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(file))
	}
	out := map[string]string{}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := run(ctx, plugin, request, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sources(folder string) (names []string, err error) {
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".proto" {
			return err
		}
		name, err := filepath.Rel(folder, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	return names, err
}

// run feeds a plugin as protoc does. The version in a header would be that of protoc, which there is none of.
func run(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest, out map[string]string) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "tool", plugin)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", plugin, err)
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return fmt.Errorf("%s: %w", plugin, err)
	}
	if response.GetError() != "" {
		return fmt.Errorf("%s: %s", plugin, response.GetError())
	}
	for _, file := range response.GetFile() {
		out[file.GetName()] = strings.ReplaceAll(file.GetContent(), "// \tprotoc        (unknown)\n", "")
	}
	return nil
}

func write(root string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
