package upstream

import (
	"context"
	"net/http"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Models lists what the server offers: the names that decode finds in the document at path.
func (c *Client) Models(ctx context.Context, path string, header http.Header, decode func([]byte) ([]string, error)) ([]string, error) {
	call := c.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer call.Close()
	body, err := call.Exchange(http.MethodGet, path, nil, header, openai.MaxEventBytes, &openai.Chunk{})
	if err != nil {
		return nil, err
	}
	names, err := decode(body)
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's list of models cannot be read; the operator should check the backend's url").WithCause(err)
	}
	return names, nil
}
