package backendv1

import (
	"strconv"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// goOn makes the request one that goes on with an answer, if that is what is asked for, and asks to be told what the next
// could go on from.
func (c *call) goOn(out *pb.GenerateRequest) error {
	how := c.backend.config.Continue
	c.tell = c.request.Tell && c.request.Stream && how == inference.ContinueTokens
	out.TellTokenIds = c.tell
	if c.tell {
		c.running.Vocabulary = openai.Model(out.GetBodyJson())
	}
	r := c.request.Resume
	if r == nil {
		return nil
	}
	if how == inference.ContinueNone || r.IDs != nil && how != inference.ContinueTokens {
		return cannotGoOn()
	}
	c.mender.As = &r.Origin
	out.BodyJson = openai.WithLess(out.GetBodyJson(), r.Tokens)
	if r.IDs == nil {
		out.ResumeText = r.Text
		return nil
	}
	prompt := max(0, len(r.IDs)-r.Tokens)
	out.PromptTokenIds, out.ResumeTokenIds = narrow(r.IDs[:prompt]), narrow(r.IDs[prompt:])
	return nil
}

// cannotGoOn is the error of a call that was to go on with an answer, before anything of it was passed on.
func cannotGoOn() error {
	return schemas.Errorf(schemas.CodeUnsupported, "the model server cannot go on with an answer")
}

func narrow(ids []int64) []uint32 {
	out := make([]uint32, len(ids))
	for i, id := range ids {
		out[i] = uint32(id) // the server told them as such
	}
	return out
}

// told is what the i-th chunk of a message tells another call to go on from. Tokens that do not belong to the chunks one by
// one are of no use.
func (c *call) told(m *pb.GenerateEvent, i int) *openai.Running {
	if !c.tell {
		return nil
	}
	c.running.TokenIDs, c.running.Prompt = "", ""
	if ids := m.GetTokenIds(); len(ids) == len(m.GetChunkJson()) {
		c.running.TokenIDs = list(ids[i].GetId())
	}
	if i == 0 {
		c.running.Prompt = list(m.GetPromptTokenIds())
	}
	return &c.running
}

// list writes ids as [openai.Running] has them.
func list(ids []uint32) string {
	if len(ids) == 0 {
		return ""
	}
	out := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		out = append(strconv.AppendUint(out, uint64(id), 10), ',')
	}
	return string(out[:len(out)-1])
}
