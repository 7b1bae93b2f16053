package schemas

// Accounts of NATS, as the embedded server and nats.conf have them.
const (
	AccountPipeline = "LLM"  // the stages and trusted services, with JetStream
	AccountEdge     = "EDGE" // tenants, without JetStream
	AccountAuth     = "AUTH" // who answers the auth callout of a cluster
	AccountSystem   = "SYS"
)

// EventKeys is the kind of the events that tell what was done to API keys.
const EventKeys = "keys"
