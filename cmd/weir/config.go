package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/certs"
)

// Config is everything that an operator may set. The order is file < environment (WEIR_*) < flag, and the defaults are
// such that none is needed.
//
// The doc tags are the descriptions in config.schema.json.
type Config struct {
	HTTP        string            `yaml:"http" doc:"Address of the HTTP door, host:port; port 0 for any. Beyond loopback it needs keys."`
	NATS        string            `yaml:"nats" doc:"serve: address the embedded NATS server listens on (host:port), or a nats:// URL to use that server instead. Elsewhere: the server to connect to."`
	Context     string            `yaml:"context,omitempty" doc:"Context of the nats CLI to connect with, by name or file, instead of nats."`
	Creds       string            `yaml:"creds,omitempty" doc:"NATS credentials file."`
	Admin       string            `yaml:"admin" doc:"Address of /livez, /readyz, /metrics and /debug/pprof, host:port; off to have none."`
	DataDir     string            `yaml:"data_dir" doc:"Directory of the embedded NATS server's store and of the SQLite database."`
	LogLevel    string            `yaml:"log_level" enum:"debug,info,warn,error" doc:"Least level that is logged."`
	Models      map[string]Model  `yaml:"models" doc:"The models that can be asked for, by name. Without any there is echo."`
	Currency    string            `yaml:"currency" doc:"What the prices of models and the budgets of tenants are in."`
	Keys        []Key             `yaml:"keys,omitempty" doc:"API keys, beside those of weir keys create. While there is none at all, loopback has open access as tenant default."`
	AuthCallout AuthCallout       `yaml:"auth_callout,omitempty" doc:"How ingest answers the auth callout of external NATS servers, which lets tenants connect to them with API keys."`
	Tenants     map[string]Tenant `yaml:"tenants,omitempty" doc:"What tenants may have, by name. One that is not named has what default says, or else no limits."`
	Cache       Cache             `yaml:"cache,omitempty" doc:"Answers that equal requests are given again. Off, unless a request or its tenant asks for it."`
	Ingest      Ingest            `yaml:"ingest,omitempty" doc:"The doors, HTTP and NATS."`
	Router      Router            `yaml:"router,omitempty" doc:"How several routers work together."`
	TLS         TLS               `yaml:"tls,omitempty" doc:"Certificates. A file that is replaced is used from the next connection on."`
	Telemetry   Telemetry         `yaml:"telemetry,omitempty" doc:"Where traces go."`
	Network     Network           `yaml:"network,omitempty" doc:"Which addresses backends may have. Never link-local ones, where clouds keep credentials, unless allowed."`
	Sink        Sink              `yaml:"sink,omitempty" doc:"Where results are kept."`

	Durability   string   `yaml:"durability" enum:"power,process" doc:"power: the embedded server syncs to disk before every acknowledgement. process: it survives any kill but not a power cut, and is faster."`
	Lease        Duration `yaml:"lease" min:"1s" max:"1h" doc:"How long work stays with a worker that gives no sign of life."`
	Replicas     int      `yaml:"replicas" enum:"1,3,5" doc:"Replicas of each stream: 1 on a single server, 3 or 5 on a cluster of at least as many."`
	DrainTimeout Duration `yaml:"drain_timeout" min:"1s" max:"1h" doc:"How long stopping may take before what still runs is cut off."`
}

// Model is a model name and who answers for it.
type Model struct {
	Backends    []Backend `yaml:"backends" doc:"Who is called. At least one."`
	Timeouts    Timeouts  `yaml:"timeouts,omitempty" doc:"Limits on one call."`
	Retry       Retry     `yaml:"retry,omitempty" doc:"What happens when a call fails before its first token."`
	Fallback    []string  `yaml:"fallback,omitempty" doc:"Other models that answer when this one does not, in this order. The answer names the model that gave it. Embeddings and counts of tokens have no fallback."`
	Context     int       `yaml:"context,omitempty" min:"1" max:"100000000" doc:"Tokens that the model takes. A request that is too long for it goes only to a fallback whose context is larger."`
	Hedge       Hedge     `yaml:"hedge,omitempty" doc:"Asking a second backend when the first token of a stream is late."`
	Balance     Balance   `yaml:"balance,omitempty" doc:"How calls are spread over the backends."`
	Breaker     Breaker   `yaml:"breaker,omitempty" doc:"When a backend is cut off because its calls fail."`
	Adaptive    Adaptive  `yaml:"adaptive,omitempty" doc:"Lets the calls that run at once follow the time to first token."`
	Price       *Price    `yaml:"price,omitempty" doc:"What a million tokens cost, for the cost in results and for budgets in money. Without it there is no cost."`
	CountTokens string    `yaml:"count_tokens,omitempty" enum:"estimate,exact" doc:"How the router counts a prompt before it runs. estimate: by its length, corrected by what was used; the default. exact: as OpenAI's text models do (o200k), up to 64 KiB of text; it costs 0.2 ms of CPU per KB, and 7 MB of memory once."`
	Midstream   Midstream `yaml:"midstream,omitempty" doc:"What happens when an answer is cut after its caller has seen some of it."`
}

// Backend is one upstream.
type Backend struct {
	Name                string           `yaml:"name" doc:"Name in results, logs and metrics; unique within the model."`
	Protocol            string           `yaml:"protocol" enum:"openai,anthropic,ollama,grpc,triton,echo" doc:"openai: anything with POST /chat/completions. anthropic: anything with POST /messages. ollama: Ollama's own POST /api/chat. grpc: a server of llm.backend.v1. triton: Triton with its vLLM backend, over gRPC. echo: built in, answers with the prompt."`
	URL                 string           `yaml:"url,omitempty" doc:"Base URL with the version, such as https://api.openai.com/v1 or https://api.anthropic.com/v1; of an ollama backend the server's address, such as http://127.0.0.1:11434; over gRPC grpc://host:port, or grpcs:// for TLS."`
	APIKey              inference.Secret `yaml:"api_key,omitempty" doc:"Bearer token, or x-api-key of an anthropic backend. Use ${VARIABLE} to keep it out of the file."`
	Model               string           `yaml:"model,omitempty" doc:"Name of the model at the backend, when it differs."`
	MaxInFlight         int              `yaml:"max_in_flight,omitempty" min:"1" max:"16384" doc:"Calls that may run at once; default 32."`
	Weight              int              `yaml:"weight,omitempty" min:"1" max:"1000" doc:"Share of the work in relation to the other backends of the model, 1 to 1000; default 1."`
	Proxy               inference.Secret `yaml:"proxy,omitempty" doc:"URL of the proxy to the server: http, https or socks5, with user and password if need be. Default: none, whatever the environment says."`
	CA                  string           `yaml:"ca,omitempty" doc:"With TLS: PEM file of the authorities that the server's certificate must come from; default: those of the system."`
	H2C                 bool             `yaml:"h2c,omitempty" doc:"HTTP/2 without TLS, for a server that is known to speak it. With TLS it is agreed on by itself."`
	Deterministic       *bool            `yaml:"deterministic,omitempty" doc:"The same request at temperature 0 gives the same answer, so that a cut answer may be spliced from a second run. Default: true for echo, else false."`
	Continue            string           `yaml:"continue,omitempty" enum:"none,prefill,tokens" doc:"How the backend goes on with an answer that was cut. prefill: it takes the beginning as a last message of the assistant (openai: with add_generation_prompt and continue_final_message, as vLLM and llama.cpp do; anthropic: models before Claude 4.6; ollama: models whose template leaves that message open, as most do; grpc: as resume_text). tokens: openai and grpc alone, and exact: it tells token ids and takes them, and the text where there are none (openai: return_token_ids, and the ids as the prompt of POST /completions, as vLLM does; grpc: token_ids and resume_token_ids). Default: prefill for echo, else none."`
	OnMalformed         string           `yaml:"on_malformed,omitempty" enum:"fail,skip" doc:"openai, anthropic: what happens to a call when one of its events cannot be read. fail: it fails, and the answer goes on as midstream says; the default. skip: the event is left out, up to 100 of a call, and the result counts them; its text is missing then."`
	RequireFinishReason *bool            `yaml:"require_finish_reason,omitempty" doc:"An answer that ends without a finish_reason counts as cut; default true. Some providers never send one."`
	MaxCompletionTokens bool             `yaml:"max_completion_tokens,omitempty" doc:"openai: send max_tokens as max_completion_tokens, for servers that refuse the older name, such as OpenAI's own reasoning models."`
	MaxTokens           int              `yaml:"max_tokens,omitempty" min:"1" max:"10000000" doc:"anthropic, triton: limit of the answer to a request that sets none; default 4096."`
	AnthropicVersion    string           `yaml:"anthropic_version,omitempty" doc:"anthropic: version of the protocol for chat requests and for messages requests that name none; default 2023-06-01."`
	KeepAlive           string           `yaml:"keep_alive,omitempty" doc:"ollama: how long the model stays loaded after a request, such as 10m, 0, or -1 for ever. Default: the server's own."`
	NumCtx              int              `yaml:"num_ctx,omitempty" min:"1" max:"100000000" doc:"ollama: size of the context in tokens. A request that does not fit is refused, never cut. Default: the server's own, which may be small."`
	Template            string           `yaml:"template,omitempty" enum:"raw,chatml,llama3" doc:"triton: how a chat is written down for the model: raw, chatml or llama3. Without one it serves completions only."`
	Echo                Echo             `yaml:"echo,omitempty" doc:"Dials of an echo backend."`
}

// Echo has the dials of an echo backend. The member x_echo of a request turns them for one request.
type Echo struct {
	Tokens     int  `yaml:"tokens,omitempty" min:"0" max:"1048576" doc:"Length of the answer; the text is repeated or cut. Default: the text once."`
	IntervalMS int  `yaml:"interval_ms,omitempty" min:"0" max:"60000" doc:"Milliseconds before each token."`
	Vary       bool `yaml:"vary,omitempty" doc:"Each call gives another text."`
}

// Timeouts of one call.
type Timeouts struct {
	Connect    Duration `yaml:"connect,omitempty" min:"1ms" max:"1h" doc:"To connect; default 3s."`
	FirstToken Duration `yaml:"first_token,omitempty" min:"1ms" max:"1h" doc:"To the first token; default 60s."`
	Idle       Duration `yaml:"idle,omitempty" min:"1ms" max:"1h" doc:"Between two tokens; default 60s."`
	Total      Duration `yaml:"total,omitempty" min:"1ms" max:"1h" doc:"For the whole answer; default 15m."`
}

// Key is an API key, of which only the hash is stored.
type Key struct {
	ID      string   `yaml:"id" doc:"Name of the key in logs."`
	Tenant  string   `yaml:"tenant" doc:"Tenant whose requests come with this key: 1 to 64 of A-Z a-z 0-9 _ -."`
	SHA256  string   `yaml:"sha256" doc:"SHA-256 of the key in hex: printf %s \"$KEY\" | sha256sum."`
	Models  []string `yaml:"models,omitempty" doc:"Names of the models that it may use; default all."`
	Scope   string   `yaml:"scope,omitempty" enum:"full,audit" doc:"full, or audit: it may read streams and results and send nothing; default full."`
	Expires string   `yaml:"expires,omitempty" doc:"When it stops working: a day such as 2027-12-31, or a time such as 2027-12-31T18:00:00Z; default never."`
}

// AuthCallout says how the auth callout of external NATS servers is answered.
type AuthCallout struct {
	User       string           `yaml:"user,omitempty" doc:"The callout's user on the NATS servers, in account AUTH; default auth."`
	Password   inference.Secret `yaml:"password,omitempty" doc:"Its password."`
	IssuerSeed inference.Secret `yaml:"issuer_seed,omitempty" doc:"Account seed (SA…) that signs the answers, from weir keys issuer; without it the callout is not answered."`
	XKeySeed   inference.Secret `yaml:"xkey_seed,omitempty" doc:"Curve seed (SX…) that decrypts the questions, from weir keys issuer."`
}

// Ingest has what the doors allow.
type Ingest struct {
	MaxBodyBytes             int64    `yaml:"max_body_bytes,omitempty" min:"1" max:"10485760" doc:"Largest request body; default 10485760."`
	MaxBodiesBytes           int64    `yaml:"max_bodies_bytes,omitempty" min:"1" max:"1099511627776" doc:"Bytes of request bodies that are held at once, from their arrival until they are stored, less 64 KiB of each; beyond, the answer is 503; default 268435456."`
	MaxStreams               int      `yaml:"max_streams,omitempty" min:"1" max:"1000000" doc:"Requests being answered at once, beyond which the answer is 503; default 10000."`
	MaxStreamsPerKey         int      `yaml:"max_streams_per_key,omitempty" min:"1" max:"1000000" doc:"Of those, for one API key, beyond which the answer is 429; default 2000."`
	MaxStreamsPerAddress     int      `yaml:"max_streams_per_address,omitempty" min:"1" max:"1000000" doc:"Of those, for one address of a caller or one /64 of IPv6, beyond which the answer is 429; default 2000."`
	MaxConnectionsPerAddress int      `yaml:"max_connections_per_address,omitempty" min:"1" max:"1000000" doc:"HTTP connections from one address, beyond which one more is closed at once; default 4000."`
	TrustedProxies           []string `yaml:"trusted_proxies,omitempty" doc:"Addresses or networks of proxies in front, whose X-Forwarded-For tells the caller's address."`

	Heartbeat       Duration `yaml:"heartbeat,omitempty" min:"10ms" max:"10m" doc:"Silence in a stream after which the caller gets a comment, so that nothing on the way takes the connection for dead; default 15s."`
	DisconnectGrace Duration `yaml:"disconnect_grace,omitempty" min:"1ms" max:"1h" doc:"Between a caller's leaving and the cancel; default 10s."`
	DetachedMax     Duration `yaml:"detached_max,omitempty" min:"1ms" max:"1h" doc:"How long a request that may go on does so without a reader; default 5m."`
	CORS            CORS     `yaml:"cors,omitempty" doc:"Which web pages may call the HTTP door from a browser."`
	Edge            Edge     `yaml:"edge,omitempty" doc:"User of ingest in account EDGE, with which it serves tenants on NATS; without one it serves only the account of the pipeline. The embedded server brings its own."`
}

// CORS says which web pages may call the HTTP door from a browser.
type CORS struct {
	Origins []string `yaml:"origins,omitempty" doc:"Origins of the web pages that may call the HTTP door from a browser, exactly as browsers send them, such as https://app.example.com. A star stands for all, and holds only while there is a key. Default: none."`
}

// Edge is a user in account EDGE of the server that nats names.
type Edge struct {
	User     string           `yaml:"user,omitempty" doc:"User name; edge in nats.conf."`
	Password inference.Secret `yaml:"password,omitempty" doc:"Its password. Use ${VARIABLE} to keep it out of the file."`
	Creds    string           `yaml:"creds,omitempty" doc:"NATS credentials file, instead of user and password."`
}

// TLS names the PEM files of each side that has any.
type TLS struct {
	HTTP   ServerTLS `yaml:"http,omitempty" doc:"The HTTP door. Without a certificate it is plain."`
	NATS   ServerTLS `yaml:"nats,omitempty" doc:"The embedded NATS server of serve. Without a certificate it is plain."`
	Client ClientTLS `yaml:"client,omitempty" doc:"Connections of stages and commands to NATS."`
}

// ServerTLS is the TLS of a listener.
type ServerTLS struct {
	Cert       string     `yaml:"cert,omitempty" doc:"PEM file of the certificate, with its chain."`
	Key        string     `yaml:"key,omitempty" doc:"PEM file of the certificate's key."`
	ClientCA   string     `yaml:"client_ca,omitempty" doc:"PEM file of the authorities that sign certificates of clients; with client_auth."`
	ClientAuth certs.Auth `yaml:"client_auth,omitempty" enum:"none,request,require" doc:"Certificates of clients. none: not asked for, the default. request: a client may have none, but not a bad one. require: a client without a good one is refused."`
}

// ClientTLS is the TLS of a connection to NATS.
type ClientTLS struct {
	CA   string `yaml:"ca,omitempty" doc:"PEM file of the authorities that the NATS server's certificate must come from; default: those of the system, which a tls:// URL uses."`
	Cert string `yaml:"cert,omitempty" doc:"PEM file of a certificate to present to the NATS server."`
	Key  string `yaml:"key,omitempty" doc:"PEM file of that certificate's key."`
}

// Telemetry says where traces go.
type Telemetry struct {
	OTLPEndpoint string `yaml:"otlp_endpoint,omitempty" doc:"OTLP over HTTP, such as http://127.0.0.1:4318. Without it no traces are made."`
}

// Sink says where results are kept.
type Sink struct {
	Path string `yaml:"path,omitempty" doc:"The SQLite file; default weir.db in data_dir."`
}

// off is the value of an address that is not listened on.
const off = "off"

func defaultConfig() Config {
	return Config{
		HTTP: "127.0.0.1:8080", NATS: "127.0.0.1:4222", Admin: "127.0.0.1:8081", DataDir: "./weir-data", LogLevel: "info", Currency: "USD",
		Durability: "power", Lease: Duration(30 * time.Second), Replicas: 1, DrainTimeout: Duration(30 * time.Second),
		Router: Router{Active: 1},
	}
}

// complete fills in what depends on other settings.
func (c *Config) complete() {
	if len(c.Models) == 0 {
		c.Models = map[string]Model{"echo": {Backends: []Backend{{Name: "echo", Protocol: "echo"}}}}
	}
	if c.AuthCallout.IssuerSeed != "" && c.AuthCallout.User == "" {
		c.AuthCallout.User = "auth"
	}
	if c.Sink.Path == "" {
		c.Sink.Path = filepath.Join(c.DataDir, "weir.db")
	}
}

func (c *Config) modelNames() []string { return slices.Sorted(maps.Keys(c.Models)) }

// loadConfig reads the file (none when the path is empty), the environment and the flags that were given, in this order.
// The error tells all mistakes.
func loadConfig(path string, env, flags map[string]string) (*Config, error) {
	cfg, found := readConfig(path, env, flags)
	return cfg, found.err()
}

// readConfig does what loadConfig does, and tells everything that it found.
func readConfig(path string, env, flags map[string]string) (*Config, *findings) {
	cfg, found := defaultConfig(), newFindings()
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			found.unreadable(origin{}, "", "name a file that exists; weir needs none to start", "%s", err)
			return &cfg, found
		}
		decodeFile(path, data, env, &cfg, found)
	}
	setFromEnvironment(&cfg, env, found)
	setFromFlags(&cfg, flags, found)
	cfg.complete()
	cfg.validate(found)
	return &cfg, found
}
