package backendv1_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// benchServer names the variable that makes the test binary serve the benchmark instead, so that what a call costs here
// is not mixed with what it costs there.
const benchServer = "WEIR_BENCH_SERVER"

const benchTokens = 64 // of an answer

func TestMain(m *testing.M) {
	if os.Getenv(benchServer) != "" {
		serveBenchmark()
		return
	}
	os.Exit(m.Run())
}

// benchAnswer has chunks of some 180 bytes.
func benchAnswer() []string {
	tokens := make([]string, benchTokens)
	for i := range tokens {
		tokens[i] = fmt.Sprintf(" token%d", i)
	}
	return openaitest.Answer(tokens...)
}

// serveBenchmark serves one answer over both protocols until its input ends.
func serveBenchmark() {
	answer := benchAnswer()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	web, own := listen(), listen()
	rest := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		for _, chunk := range answer {
			_, _ = io.WriteString(w, "data: "+chunk+"\n\n")
			_ = control.Flush()
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})}
	server := grpc.NewServer()
	pb.RegisterBackendServer(server, benchmarked{answer: answer})
	go func() { _ = rest.Serve(web) }()
	go func() { _ = server.Serve(own) }()
	fmt.Println(web.Addr(), own.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// benchmarked answers with as many chunks in a message as the model is called.
type benchmarked struct {
	pb.UnimplementedBackendServer
	answer []string
}

func (s benchmarked) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	together := 1
	if strings.Contains(string(r.GetBodyJson()), `"model":"together"`) {
		together = 8
	}
	for i := 0; i < len(s.answer); i += together {
		if err := stream.Send(chunks(s.answer[i:min(i+together, len(s.answer))]...)); err != nil {
			return err
		}
	}
	return stream.Send(ending(&pb.Final{PromptTokens: 3, CompletionTokens: benchTokens}))
}

// BenchmarkRESTAndGRPC asks one model for answers of 64 tokens over both protocols. The CPU is that of the caller's process
// alone, and the server sends each chunk by itself, as fast as it can, unless the name says otherwise.
func BenchmarkRESTAndGRPC(b *testing.B) {
	web, own := startBenchmarkServer(b)
	rest, err := openai.New(openai.Config{Name: "rest", URL: "http://" + web + "/v1"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = rest.Close() })
	rpc := backend(b, backendv1.Config{URL: "grpc://" + own})
	for _, over := range []struct {
		name    string
		backend inference.Backend
		model   string
	}{{"REST", rest, "m"}, {"gRPC", rpc, "m"}, {"gRPC-8-together", rpc, "together"}} {
		for _, streams := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/streams=%d", over.name, streams), func(b *testing.B) {
				body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"hi"}]}`, over.model)
				measure(b, over.backend, request(body), streams)
			})
		}
	}
}

func startBenchmarkServer(b *testing.B) (web, own string) {
	b.Helper()
	command := exec.CommandContext(b.Context(), os.Args[0])
	command.Env = append(os.Environ(), benchServer+"=1")
	input, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = input.Close(); _ = command.Wait() })
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	web, own, _ = strings.Cut(strings.TrimSpace(line), " ")
	return web, own
}

func measure(b *testing.B, over inference.Backend, r *inference.GenerateRequest, streams int) {
	var answers, first atomic.Int64
	begun := cpu(b)
	for b.Loop() {
		var group sync.WaitGroup
		for range streams {
			group.Go(func() {
				started, seen, tokens := time.Now(), false, 0
				for event, err := range over.Generate(b.Context(), r) {
					if err != nil {
						b.Error(schemas.AsError(err))
						return
					}
					if len(event.Chunk.Choices) > 0 && event.Chunk.Choices[0].Content != "" {
						if tokens++; !seen {
							seen = true
							first.Add(time.Since(started).Microseconds())
						}
					}
				}
				if tokens != benchTokens {
					b.Errorf("an answer of %d tokens", tokens)
				}
				answers.Add(1)
			})
		}
		group.Wait()
	}
	n := float64(answers.Load())
	b.ReportMetric(float64((cpu(b)-begun).Microseconds())/n/benchTokens, "cpu-µs/token")
	b.ReportMetric(float64(first.Load())/n, "first-token-µs")
	b.ReportMetric(n/b.Elapsed().Seconds(), "answers/s")
	b.ReportMetric(0, "ns/op")
}

// cpu is what the process has used so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
