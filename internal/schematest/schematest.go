// Package schematest checks messages against schemas/asyncapi.yaml and the JSON Schemas beside it, so that the documents
// say what the pipeline does. Only tests use it.
package schematest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/weir-llm/weir/schemas"
)

// Document is asyncapi.yaml with its schemas.
type Document struct {
	Channels []Channel
	Schemas  map[string]*jsonschema.Schema // by file name
}

// Channel is a subject, with the messages that may travel on it.
type Channel struct {
	Name     string
	Address  string
	Messages []Message

	subject *regexp.Regexp
}

// Message is one kind of message.
type Message struct {
	Name    string
	content string
	headers *jsonschema.Schema
	payload *jsonschema.Schema
}

// Load reads the document and the schemas from the folder schemas.
func Load(folder string) (*Document, error) {
	d := &Document{Schemas: map[string]*jsonschema.Schema{}}
	if err := d.compile(filepath.Join(folder, "jsonschema")); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(folder, "asyncapi.yaml"))
	if err != nil {
		return nil, err
	}
	var doc document
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	for name, c := range doc.Channels {
		if c.Address == "" {
			continue // wherever the caller wants it
		}
		channel, err := d.channel(name, c, &doc)
		if err != nil {
			return nil, fmt.Errorf("channel %s: %w", name, err)
		}
		d.Channels = append(d.Channels, channel)
	}
	return d, nil
}

// document is the part of asyncapi.yaml that says what travels where.
type document struct {
	Channels   map[string]channel
	Components struct {
		Messages map[string]message
	}
}

type channel struct {
	Address  string
	Messages map[string]reference
}

type message struct {
	ContentType string `yaml:"contentType"`
	Headers     reference
	Payload     reference
}

type reference struct {
	Ref string `yaml:"$ref"`
}

func (d *Document) compile(folder string) error {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	ids := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		members, _ := schema.(map[string]any)
		ids[name], _ = members["$id"].(string)
		return compiler.AddResource(ids[name], schema)
	})
	if err != nil {
		return err
	}
	for name, id := range ids {
		if d.Schemas[name], err = compiler.Compile(id); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

// channel resolves the messages of a channel. The last parameter of an address may stand for several tokens.
func (d *Document) channel(name string, c channel, doc *document) (Channel, error) {
	out := Channel{Name: name, Address: c.Address}
	pattern := parameter.ReplaceAllString(strings.ReplaceAll(c.Address, ".", `\.`), `[^.]+`)
	out.subject = regexp.MustCompile("^" + pattern + `(\..+)?$`)
	for name, to := range c.Messages {
		m, ok := doc.Components.Messages[path.Base(to.Ref)]
		if !ok {
			return out, fmt.Errorf("there is no message %s", to.Ref)
		}
		kind := Message{Name: name, content: m.ContentType, headers: d.Schemas[path.Base(m.Headers.Ref)], payload: d.Schemas[path.Base(m.Payload.Ref)]}
		if kind.headers == nil && m.Headers.Ref != "" || kind.payload == nil && m.Payload.Ref != "" {
			return out, fmt.Errorf("message %s: there is no file %s or %s", name, m.Headers.Ref, m.Payload.Ref)
		}
		out.Messages = append(out.Messages, kind)
	}
	return out, nil
}

// Check gives the kinds of message of the subject's channel that a message is. It is an error when it is none.
func (d *Document) Check(subject string, header schemas.Header, payload []byte) (kinds []string, err error) {
	for _, c := range d.Channels {
		if !c.subject.MatchString(subject) {
			continue
		}
		var reasons []error
		for _, m := range c.Messages {
			if err := m.check(header, payload); err != nil {
				reasons = append(reasons, fmt.Errorf("%s is no %s: %w", subject, m.Name, err))
				continue
			}
			kinds = append(kinds, m.Name)
		}
		if len(kinds) == 0 {
			return nil, errors.Join(reasons...)
		}
		return kinds, nil
	}
	return nil, fmt.Errorf("no channel has the subject %s", subject)
}

func (m *Message) check(header schemas.Header, payload []byte) error {
	values := map[string]any{}
	for name, v := range header {
		if len(v) != 1 {
			return fmt.Errorf("header %s has %d values", name, len(v))
		}
		values[name] = v[0]
	}
	if m.headers != nil {
		if err := m.headers.Validate(values); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
	}
	// An object is elsewhere, and a part is no whole.
	if m.payload == nil || values[schemas.HeaderPart] != nil || values[schemas.HeaderObject] != nil && len(payload) == 0 {
		return nil
	}
	instance, err := m.decode(payload)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	if err := m.payload.Validate(instance); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}

func (m *Message) decode(payload []byte) (any, error) {
	switch {
	case m.content == "application/x-ndjson" && len(payload) == 0: // an attempt that was handed back, or cut
		return []any{}, nil
	case m.content == "text/plain" || len(payload) == 0:
		return string(payload), nil
	case m.content == "application/x-ndjson":
		lines := []any{}
		for line := range bytes.SplitSeq(payload, []byte("\n")) {
			event, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
			if err != nil {
				return nil, err
			}
			lines = append(lines, event)
		}
		return lines, nil
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(payload))
}
