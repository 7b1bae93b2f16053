package anthropic

import "time"

// EncodeModels writes the body of GET /v1/models as clients of the dialect read it.
func EncodeModels(names []string, since time.Time) []byte {
	o := object{out: []byte(`{"data":[`)}
	for _, name := range names {
		o.next()
		model := object{out: append(o.out, '{')}
		model.text("type", "model")
		model.text("id", name)
		model.text("display_name", name)
		model.text("created_at", since.UTC().Format(time.RFC3339))
		o.out = append(model.out, '}')
	}
	o.out = append(o.out, ']')
	o.comma = true
	o.raw("has_more", "false")
	if len(names) > 0 {
		o.text("first_id", names[0])
		o.text("last_id", names[len(names)-1])
	}
	return append(o.out, '}')
}
