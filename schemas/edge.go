package schemas

// ChatSubject is the service endpoint where a NATS tenant sends a request; its answer comes to the reply inbox. Both
// arguments are encoded tokens.
func ChatSubject(tenant, modelToken string) string { return "llm.chat." + tenant + "." + modelToken }

// ResumeSubject is the service endpoint where a NATS tenant reads a request's frames again.
func ResumeSubject(id Identity) string { return "llm.resume." + id.Tenant + "." + id.Request }

// EdgeInbox is the inbox prefix of a tenant's connections: the only place where replies to them may go.
func EdgeInbox(tenant string) string { return "_INBOX_" + tenant }

// EdgePublish is what a tenant's connection may publish to, and nothing else.
func EdgePublish(tenant string) []string {
	return []string{"llm.chat." + tenant + ".*", "llm.resume." + tenant + ".*", "llm.cancel." + tenant + ".*"}
}

// EdgeSubscribe is what a tenant's connection may subscribe to, and nothing else.
func EdgeSubscribe(tenant string) []string {
	return []string{"llm.replies." + tenant + ".*", EdgeInbox(tenant) + ".>"}
}
