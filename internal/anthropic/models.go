package anthropic

import "time"

// EncodeModel writes the body of GET /v1/models/{id} as clients of the dialect read it.
func EncodeModel(name string, since time.Time) []byte {
	o := object{out: []byte{'{'}}
	o.text("type", "model")
	o.text("id", name)
	o.text("display_name", name)
	o.text("created_at", since.UTC().Format(time.RFC3339))
	return append(o.out, '}')
}

// EncodeModels writes the body of GET /v1/models as clients of the dialect read it.
func EncodeModels(names []string, since time.Time) []byte {
	o := object{out: []byte(`{"data":[`)}
	for _, name := range names {
		o.element(EncodeModel(name, since))
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
