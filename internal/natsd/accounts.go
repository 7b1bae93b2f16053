package natsd

// accounts is what the server parses at start, the same as in nats.conf. From EDGE nothing goes into the pipeline by itself:
// ingest has a connection of its own there, and takes up what tenants ask. Only the committed frames come out. The operator
// sees the service in both accounts (docs/adr/0002, docs/adr/0007).
const accounts = `
accounts {
  LLM {
    jetstream: enabled
    exports: [
      {stream: "llm.replies.>"}
    ]
    imports: [
      {service: {account: EDGE, subject: "$SRV.>"}}
    ]
  }
  EDGE {
    exports: [
      {service: "$SRV.>", response: stream, accounts: [LLM]}
    ]
    imports: [
      {stream: {account: LLM, subject: "llm.replies.>"}}
    ]
  }
  SYS {}
}
system_account: SYS
`
