package schemas

// HeirsAll is the subject space of questions about who inherits runs.
const HeirsAll = "llm.heir.*.*"

// Heir is the subject on which routers are asked who inherits the run of the request, which is about to end without it. The
// router that knows answers with a [Work], or with an empty message when nobody shares the run (docs/adr/0023).
func (id Identity) Heir() string { return "llm.heir." + id.Tenant + "." + id.Request }
