package schemas

// BackendDomain says in a google.rpc.ErrorInfo that its reason is one of our codes. It is the package of
// schemas/proto/llm/backend/v1/backend.proto.
const BackendDomain = "llm.backend.v1"
