package schemas

import "strings"

// ChatSubject is the service endpoint where a NATS tenant sends a request; its answer comes to the reply inbox. Both
// arguments are encoded tokens.
func ChatSubject(tenant, modelToken string) string { return "llm.chat." + tenant + "." + modelToken }

// ResumeSubject is the service endpoint where a NATS tenant reads a request's frames again.
func ResumeSubject(id Identity) string { return "llm.resume." + id.Tenant + "." + id.Request }

// ReadSubject is the service endpoint that does the same for a caller who may only read: that it reads, and leaves,
// changes nothing about the request.
func ReadSubject(id Identity) string { return "llm.read." + id.Tenant + "." + id.Request }

// What a caller of the service may say besides the headers of a request (docs/adr/0011).
const (
	HeaderPrefer = "Prefer"        // as on HTTP
	PreferAsync  = "respond-async" // the answer is only that the request is accepted (RFC 7240)

	PreferProcessing = "processing" // responses 102 tell where the request stands, until its answer in one piece is there (docs/adr/0022)
	TakesSigns       = "1"          // of Llm-Stream-Events: the caller takes signs of life also before an answer of one message
	AskResult        = "result"     // the payload of a resume that asks for the outcome instead of the events
)

// Subject spaces of the service endpoints.
const (
	ChatAll   = "llm.chat.*.*"
	ResumeAll = "llm.resume.*.*"
	ReadAll   = "llm.read.*.*"
)

// ParseChatSubject splits the subject of a request to the service into tenant and encoded model.
func ParseChatSubject(subject string) (tenant, modelToken string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "llm.chat.")
	tenant, modelToken, split := strings.Cut(rest, ".")
	return tenant, modelToken, ok && split && !strings.Contains(modelToken, ".")
}

// IsEdgeInbox reports whether a reply subject is one that only connections of the tenant may listen to.
func IsEdgeInbox(tenant, reply string) bool {
	rest, ok := strings.CutPrefix(reply, EdgeInbox(tenant)+".")
	return ok && rest != "" && !strings.ContainsAny(rest, "*> \t\r\n")
}

// EdgeInbox is the inbox prefix of a tenant's connections: the only place where replies to them may go.
func EdgeInbox(tenant string) string { return "_INBOX_" + tenant }

// EdgePublish is what a tenant's connection may publish to, and nothing else.
func EdgePublish(tenant string) []string {
	return []string{"llm.chat." + tenant + ".*", "llm.resume." + tenant + ".*", "llm.read." + tenant + ".*", "llm.cancel." + tenant + ".*"}
}

// EdgeSubscribe is what a tenant's connection may subscribe to, and nothing else.
func EdgeSubscribe(tenant string) []string {
	return []string{"llm.replies." + tenant + ".*", EdgeInbox(tenant) + ".>"}
}
