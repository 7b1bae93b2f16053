package natsd

// accounts is what the server parses at start, the same as in nats.conf. A tenant reaches the pipeline only through the services that ingest
// answers and the committed frames that the server republishes; no tenant can reach a stream (docs/adr/0002).
const accounts = `
accounts {
  LLM {
    jetstream: enabled
    exports: [
      {service: "llm.chat.>", response: stream}
      {service: "llm.resume.>", response: stream}
      {service: "llm.cancel.>"}
      {service: "$SRV.>", response: stream}
      {stream: "llm.replies.>"}
    ]
  }
  EDGE {
    imports: [
      {service: {account: LLM, subject: "llm.chat.>"}}
      {service: {account: LLM, subject: "llm.resume.>"}}
      {service: {account: LLM, subject: "llm.cancel.>"}}
      {stream: {account: LLM, subject: "llm.replies.>"}}
    ]
  }
  SYS {}
}
system_account: SYS
`
