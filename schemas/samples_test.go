package schemas

import (
	"encoding/json"
	"strings"
	"time"
)

var (
	accepted = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	digest   = strings.Repeat("0123456789abcdef", 4)
	trace    = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	identity = Identity{Tenant: "acme", Request: "req_01JDFV3Z8Q4N6W2X9Y0T1R5S7P"}
)

// samples are one record of each kind, as this version writes them. A golden file of an older version is never
// written again; it must decode into the value that is here under its name.
func samples() map[string]sample {
	id := identity
	return map[string]sample{
		"request": {
			value: &Request{
				Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityInteractive, Deadline: accepted.Add(time.Minute),
				Header: Header{HeaderCache: {"on"}, HeaderTraceParent: {trace}, HeaderPriority: {"interactive"}},
				Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"1 < 2 & 3"}]}`),
			},
			encode: func(v any) message { r := v.(*Request); return message{r.Encode(), r.Body} },
			decode: func(m message) (any, error) { return DecodeRequest("llm.queue.2.acme.gpt-4=2E1", 7, m.Header, m.Data) },
		},
		"request-object": {
			value: &Request{
				Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal,
				Header: Header{HeaderPriority: {"normal"}},
				Object: &Object{Name: id.String() + "/w1/0", Size: 300000, Digest: digest},
			},
			encode: func(v any) message { r := v.(*Request); return message{r.Encode(), r.Body} },
			decode: func(m message) (any, error) { return DecodeRequest("llm.queue.2.acme.gpt-4=2E1", 7, m.Header, m.Data) },
		},
		"work": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal,
					Header: Header{HeaderPriority: {"normal"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[]}`),
				},
				Dispatch: 2, Accepted: accepted.Local(),
			},
			encode: func(v any) message { w := v.(*Work); return message{w.Encode(), w.Body} },
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"work-cost": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal,
					Header: Header{HeaderPriority: {"normal"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}`),
				},
				Dispatch: 1, Cost: 521, Accepted: accepted.Local(),
			},
			encode: func(v any) message { w := v.(*Work); return message{w.Encode(), w.Body} },
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"work-shared": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal,
					Header: Header{HeaderPriority: {"normal"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}`),
				},
				Dispatch: 1, Accepted: accepted.Local(), Shared: true,
			},
			encode: func(v any) message { w := v.(*Work); return message{w.Encode(), w.Body} },
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"work-held": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityBatch,
					Header: Header{HeaderPriority: {"batch"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}`),
				},
				Dispatch: 2, Accepted: accepted.Local(),
			},
			encode: func(v any) message {
				w := v.(*Work)
				return message{w.EncodeHeld(accepted.Add(time.Minute + time.Millisecond)), w.Body}
			},
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"work-held-failed": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityBatch,
					Header: Header{HeaderPriority: {"batch"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}`),
				},
				Dispatch: 2, Failures: 3, Accepted: accepted.Local(),
			},
			encode: func(v any) message {
				w := v.(*Work)
				return message{w.EncodeHeld(accepted.Add(time.Minute + time.Millisecond)), w.Body}
			},
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"frame-accepted": frameSample(&Frame{Kind: KindAccepted, Writer: "W0", BodyHash: digest[:32], Trace: trace}),
		"frame-follow": frameSample(&Frame{
			Kind: KindStart, Attempt: 1, Writer: "W3", BodyHash: digest[:32], Cache: &CacheNote{Status: CacheCoalesced},
			Start: &Start{Mode: ModeFollow, Worker: "router-1", Leader: "req_2"},
		}),
		"frame-start": frameSample(&Frame{
			Kind: KindStart, Attempt: 2, Writer: "W2", Index: 3, BodyHash: digest[:32], Trace: trace,
			Start: &Start{Mode: ModeSplice, Work: 41, Dispatch: 1, Worker: "worker-1"},
		}),
		"frame-inherit": frameSample(&Frame{
			Kind: KindStart, Attempt: 2, Writer: "W4", Index: 3, BodyHash: digest[:32],
			Start: &Start{Mode: ModeInherit, Work: 41, Dispatch: 1, Worker: "worker-1"},
		}),
		"frame-start-again": frameSample(&Frame{
			Kind: KindStart, Attempt: 2, Writer: "W2", BodyHash: digest[:32], Trace: trace,
			Start: &Start{Mode: ModeFresh, Work: 41, Redelivered: 1, Dispatch: 1, Worker: "worker-1"},
		}),
		"frame-error-heir": frameSample(&Frame{
			Kind: KindError, Attempt: 1, Writer: "W1", Index: 3, Data: Cancelled(CancelledByCaller).Encode(), Heir: "req_3",
			Summary: (&Summary{Status: StatusCancelled, CancelledBy: CancelledByCaller, Attempts: 1}).Encode(),
		}),
		"frame-delta": frameSample(&Frame{
			Kind: KindDelta, Attempt: 2, Writer: "W2", Index: 3, Count: 2, Data: []byte("{\"choices\":[]}\n{\"choices\":[{\"delta\":{\"content\":\"ü\"}}]}"),
		}),
		"frame-delta-tokens": frameSample(&Frame{
			Kind: KindDelta, Attempt: 1, Writer: "W1", Count: 2, Data: []byte("{\"choices\":[]}\n{\"choices\":[]}"),
			TokenIDs: "17,4;99", Prompt: "my-llama 3 1,2,3", Usage: `{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}`,
		}),
		"cancel": {
			value:  &Cancel{By: CancelledByDisconnect},
			encode: func(v any) message { return message{Data: v.(*Cancel).Encode()} },
			decode: func(m message) (any, error) { return DecodeCancel(m.Data), nil },
		},
		"try-fallback": {
			value:  &Summary{Status: StatusCompleted, Model: "larger", Tries: []Try{{Attempt: 1, Backend: "b", Model: "larger", Mode: TryFallback, Started: accepted, Cost: &Cost{Amount: 14_500, Currency: "USD"}}}},
			encode: func(v any) message { return message{Data: v.(*Summary).Encode()} },
			decode: func(m message) (any, error) { return DecodeSummary(m.Data) },
		},
		"try-usage": {
			value:  &Summary{Status: StatusCancelled, CancelledBy: CancelledByCaller, Malformed: 2, Tries: []Try{{Attempt: 1, Backend: "b", Started: accepted, Usage: &Usage{PromptTokens: 7, CompletionTokens: 2, TotalTokens: 9, Estimated: true}}}},
			encode: func(v any) message { return message{Data: v.(*Summary).Encode()} },
			decode: func(m message) (any, error) { return DecodeSummary(m.Data) },
		},
		"frame-delta-object": frameSample(&Frame{
			Kind: KindDelta, Attempt: 1, Writer: "W1", Count: 1, Object: &Object{Name: id.String() + "/W1/0", Size: 10 << 20, Digest: digest},
		}),
		"frame-end":       frameSample(&Frame{Kind: KindEnd, Attempt: 2, Writer: "W2", Index: 5, Data: summarySample().Encode(), Trace: trace}),
		"frame-end-unary": frameSample(&Frame{Kind: KindEnd, Attempt: 1, Writer: "W1", Count: 1, Data: []byte(`{"choices":[]}`), Summary: summarySample().Encode()}),
		"frame-error":     frameSample(&Frame{Kind: KindError, Attempt: 1, Writer: "W1", Index: 5, Data: errorSample().Encode(), Summary: summarySample().Encode(), Trace: trace}),
		"frame-end-stream": frameSample(&Frame{
			Kind: KindEnd, Writer: "W0", Count: 2, BodyHash: digest[:32], Cache: &CacheNote{Status: CacheHit, Age: 12}, Summary: summarySample().Encode(),
			Data: []byte("{\"choices\":[]}\n{\"choices\":[{\"delta\":{\"content\":\"ü\"}}]}"),
		}),
		"cache-entry": {
			value: &CacheEntry{
				V: Version, Tenant: "acme", Key: "_.k", Op: OpChat, RequestID: id.Request, TTL: 60, FinishReasons: []string{"stop"},
				Usage: summarySample().Usage, Answer: []byte(`{"object":"chat.completion","choices":[]}`), Extra: Extra{},
			},
			encode: func(v any) message { return message{Header{HeaderNatsTTL: {"60s"}}, v.(*CacheEntry).Encode()} },
			decode: func(m message) (any, error) { return DecodeCacheEntry("acme", "_.k", m.Data) },
		},
		"work-cache": {
			value: &Work{
				Request: Request{
					Identity: id, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal,
					Header: Header{HeaderPriority: {"normal"}, HeaderCache: {"on,max-age=5"}},
					Body:   []byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}`),
				},
				Dispatch: 1, Cache: &CacheNote{Status: CacheMiss, Key: "_.k", TTL: 60}, Accepted: accepted.Local(),
			},
			encode: func(v any) message { w := v.(*Work); return message{w.Encode(), w.Body} },
			decode: func(m message) (any, error) { return DecodeWork("gpt-4=2E1", m.Header, m.Data) },
		},
		"summary": {
			value:  summarySample(),
			encode: func(v any) message { return message{Data: v.(*Summary).Encode()} },
			decode: func(m message) (any, error) { return DecodeSummary(m.Data) },
		},
		"result": {
			value:  resultSample(),
			encode: func(v any) message { return message{Data: v.(*Result).Encode()} },
			decode: func(m message) (any, error) { return DecodeResult(m.Data) },
		},
		"heartbeat": {
			value: &Heartbeat{V: 1, Worker: "worker-1", Draining: true, Models: []ModelBeat{
				{Model: "gpt-4=2E1", Slots: 8, Used: 2, Held: []uint64{41, 43}, Released: []uint64{40}},
			}},
			encode: func(v any) message { return message{Data: v.(*Heartbeat).Encode()} },
			decode: func(m message) (any, error) { return DecodeHeartbeat(m.Data) },
		},
		"heartbeat-figures": {
			value: &Heartbeat{V: 1, Worker: "worker-1", Models: []ModelBeat{{
				Model: "gpt-4=2E1", Slots: 8, Used: 2, OutMS: 5000, Held: []uint64{41, 43}, Repeatable: []uint64{43},
				Backends: []BackendBeat{{Name: "vllm-1", InFlight: 2, Limit: 8, State: "open"}}, Finished: &ModelUsage{Requests: 3, EstTokens: 1700, Tokens: 900},
			}}, Tenants: []TenantUsage{{Tenant: "acme", Running: 2, Tokens: 512}}},
			encode: func(v any) message { return message{Data: v.(*Heartbeat).Encode()} },
			decode: func(m message) (any, error) { return DecodeHeartbeat(m.Data) },
		},
		"backend-event": {
			value:  &BackendEvent{V: 1, Worker: "worker-1", Model: "gpt-4.1", Backend: "vllm-1", State: "open", ForMS: 5000, Time: accepted},
			encode: func(v any) message { return message{Data: v.(*BackendEvent).Encode()} },
			decode: func(m message) (any, error) { return DecodeBackendEvent(m.Data) },
		},
		"retry-event": {
			value: &RetryEvent{
				V: 1, Tenant: "acme", Request: "r", Model: "gpt-4=2E1", Dispatch: 2, At: accepted.Add(time.Minute), Code: CodeUnavailable, By: "worker-1", Time: accepted,
			},
			encode: func(v any) message { return message{Data: v.(*RetryEvent).Encode()} },
			decode: func(m message) (any, error) { return DecodeRetryEvent(m.Data) },
		},
		"router-beat": {
			value: &RouterBeat{
				V: 1, Router: "router-1", Started: accepted.UnixMilli(), Draining: true, Eligible: []int{0, 1, 2, 3}, Partitions: []int{1, 3},
				Figures: &RouterFigures{
					Held: 9, Queued: 7, Models: []ModelQueue{{Model: "gpt-4=2E1", Queued: 7, Outstanding: 2}},
					Tenants: []TenantQueue{{Tenant: "acme", Queued: 7, WaitingMS: 1200, PredictMS: 3000, Limit: "requests_per_minute"}}, More: 1,
				},
			},
			encode: func(v any) message { return message{Data: v.(*RouterBeat).Encode()} },
			decode: func(m message) (any, error) { return DecodeRouterBeat(m.Data) },
		},
		"waiting": {
			value:  &Waiting{V: 1, Place: 3, Queued: 40, WaitMS: 12_000},
			encode: func(v any) message { return message{Data: v.(*Waiting).Encode()} },
			decode: func(m message) (any, error) { return DecodeWaiting(m.Data) },
		},
		"queue-event": {
			value: &QueueEvent{V: 1, Model: "gpt-4=2E1", Queued: 40, WaitMS: 12_000, By: "router-1", Time: accepted, Requests: []WaitingRequest{
				{Tenant: "acme", Request: "r1", Priority: PriorityNormal, WaitedMS: 4000, WaitMS: 500},
			}},
			encode: func(v any) message { return message{Data: v.(*QueueEvent).Encode()} },
			decode: func(m message) (any, error) { return DecodeQueueEvent(m.Data) },
		},
		"takeover": {
			value:  &Takeover{V: 1, Of: "worker", Name: "worker-1", Model: "gpt-4=2E1", Count: 3, By: "router-1", Time: accepted},
			encode: func(v any) message { return message{Data: v.(*Takeover).Encode()} },
			decode: func(m message) (any, error) { return DecodeTakeover(m.Data) },
		},
		"error": {
			value:  errorSample(),
			encode: func(v any) message { return message{Data: v.(*Error).Encode()} },
			decode: func(m message) (any, error) { return DecodeError(m.Data) },
		},
	}
}

type sample struct {
	value  any
	encode func(any) message
	decode func(message) (any, error)
}

func frameSample(f *Frame) sample {
	return sample{
		value:  f,
		encode: func(v any) message { f := v.(*Frame); return message{f.Encode(), f.Data} },
		decode: func(m message) (any, error) { return DecodeFrame(m.Header, m.Data) },
	}
}

func errorSample() *Error {
	return Errorf(CodeRateLimit, "Rate limit reached: try again in 1.2s").WithParam("model").WithRetryAfter(1200 * time.Millisecond)
}

func summarySample() *Summary {
	return &Summary{
		Status: StatusCompleted, FinishReasons: []string{"stop"}, Attempts: 2, FirstTokenMS: 12.5, DurationMS: 80, Model: "gpt-4.1-mini",
		Usage: &Usage{
			PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5, PromptDetails: json.RawMessage(`{"cached_tokens":1}`),
			Extra: Extra{"cost": json.RawMessage(`0.00012`)},
		},
		Cost: &Cost{Amount: 14_500, Currency: "USD"},
		Tries: []Try{
			{Attempt: 1, Backend: "vllm-1", Started: accepted, DurationMS: 3000, Outcome: CodeUpstreamTimeout, Cause: "no first token in 3s", HTTPStatus: 200},
			{Attempt: 2, Backend: "vllm-2", Started: accepted.Add(4 * time.Second), FirstTokenMS: 12.5, DurationMS: 80},
		},
	}
}

func resultSample() *Result {
	s := summarySample()
	return &Result{
		V: 1, Tenant: identity.Tenant, RequestID: identity.Request, Model: "gpt-4.1", Op: OpChat,
		Accepted: accepted, Started: accepted.Add(time.Millisecond), Finished: accepted.Add(time.Second),
		Status: s.Status, FinishReasons: s.FinishReasons, Usage: s.Usage, Cost: s.Cost, Attempts: s.Attempts, FirstTokenMS: s.FirstTokenMS,
		DurationMS: s.DurationMS, Tries: s.Tries, Priority: PriorityNormal, Dispatch: 1, Worker: "worker-1",
		BodyHash: digest[:32], Request: json.RawMessage(`{"model":"gpt-4.1","messages":[{"role":"user","content":"1 < 2 & 3"}]}`),
		Response: json.RawMessage(`{"choices":[]}`),
		Events:   &EventLog{Encoding: "zstd", Count: 2, Frames: []FrameMark{{Count: 2, AfterMS: 12, Attempt: 2}}, Data: []byte{0x28, 0xb5, 0x2f, 0xfd}},
	}
}
