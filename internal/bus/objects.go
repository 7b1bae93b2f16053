package bus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// objectsStream is what the object store is made of.
const objectsStream = "OBJ_" + schemas.BucketObjects

// objectSubjects is before the encoded name in the subject of an object's metadata.
const objectSubjects = "$O." + schemas.BucketObjects + ".M."

// putObject stores a body under a name that is never used twice: writing an existing name would purge the bytes that a
// committed message points to. A server that does not answer is asked again for as long as a write may take.
func (b *Bus) putObject(ctx context.Context, id schemas.Identity, data []byte) (*schemas.Object, error) {
	sum := sha256.Sum256(data)
	deadline := time.Now().Add(resolveTimeout)
	for {
		object := &schemas.Object{Name: id.String() + "/" + rand.Text() + "/0", Size: int64(len(data)), Digest: hex.EncodeToString(sum[:])}
		err := b.putBytes(ctx, object.Name, data)
		if err == nil {
			return object, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil || hopeless(err) {
			return nil, fmt.Errorf("store a body of %d bytes: %w", len(data), err)
		}
		if waitErr := sleep(ctx, retryWait(nil)); waitErr != nil {
			return nil, fmt.Errorf("store a body of %d bytes: %w: %w", len(data), waitErr, err)
		}
	}
}

func (b *Bus) putBytes(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if err != nil {
		return fmt.Errorf("open %s: %w", schemas.BucketObjects, err)
	}
	_, err = store.PutBytes(ctx, name, data)
	return err
}

// getObject reads and verifies a body, also from a replica that lags. It is [ErrNotFound] by the word of the leader alone.
func (b *Bus) getObject(ctx context.Context, object *schemas.Object) (data []byte, err error) {
	err = b.overLag(ctx, object.Name, func() error {
		data, err = b.tryObject(ctx, object)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrDigestMismatch):
		return nil, fmt.Errorf("read body %s: %w: %w", object.Name, ErrDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("read body %s: %w", object.Name, err)
	}
	return data, nil
}

// tryObject makes one try, of a replica.
func (b *Bus) tryObject(ctx context.Context, object *schemas.Object) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", schemas.BucketObjects, err)
	}
	info, err := store.GetInfo(ctx, object.Name)
	if err != nil {
		return nil, err
	}
	if info.Size != uint64(object.Size) { // before it takes memory: anyone may store one and name it
		return nil, fmt.Errorf("it has %d bytes instead of %d: %w", info.Size, object.Size, ErrDamaged)
	}
	data, err := getBytes(ctx, store, object.Name)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != object.Digest {
		return nil, fmt.Errorf("it does not match its digest: %w", ErrDamaged)
	}
	return data, nil
}

const (
	// replicaLag is for how long a replica may be behind before a call gives up on it.
	replicaLag = 5 * time.Second
	lagWait    = 50 * time.Millisecond
)

// overLag repeats a call that a replica fails because it does not have an object, or not all of it yet. The error is
// [ErrNotFound] when the leader does not have the object either; otherwise it is that of the last call.
func (b *Bus) overLag(ctx context.Context, name string, call func() error) error {
	deadline := time.Now().Add(replicaLag)
	for {
		err := call()
		if !errors.Is(err, jetstream.ErrObjectNotFound) && !errors.Is(err, jetstream.ErrDigestMismatch) {
			return err
		}
		unconfirmed := b.confirmObject(ctx, name)
		if errors.Is(unconfirmed, ErrNotFound) {
			return unconfirmed
		}
		if unconfirmed != nil {
			err = fmt.Errorf("%v: ask the leader: %w", err, unconfirmed) // which is no fault of the object
		}
		if time.Now().After(deadline) || hopeless(unconfirmed) {
			return err
		}
		if waitErr := sleep(ctx, lagWait); waitErr != nil {
			return fmt.Errorf("%w: %v", waitErr, err)
		}
	}
}

// confirmObject is nil when the leader has an object, and [ErrNotFound] when it does not.
func (b *Bus) confirmObject(ctx context.Context, name string) error {
	m, err := b.getLast(ctx, objectsStream, objectSubjects+base64.URLEncoding.EncodeToString([]byte(name)))
	if err != nil {
		return err
	}
	var info jetstream.ObjectInfo
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return fmt.Errorf("the metadata of an object: %w", err)
	}
	if info.Deleted {
		return ErrNotFound
	}
	return nil
}

// getBytes reads an object. It is not cancelled with ctx: the library leaves a goroutine behind for ever when that happens while
// the read begins.
func getBytes(ctx context.Context, store jetstream.ObjectStore, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*tryTimeout)
	defer cancel()
	return store.GetBytes(ctx, name)
}

// eraseObjects removes every body of a request: those that messages name, and those of writers that never got to write
// one. It looks through the names of all objects, as only erasure can afford, by the word of the leader.
func (b *Bus) eraseObjects(ctx context.Context, id schemas.Identity) error {
	stream, err := b.js.Stream(ctx, objectsStream)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", objectsStream, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(objectSubjects+">"))
	if err != nil {
		return fmt.Errorf("list %s: %w", schemas.BucketObjects, err)
	}
	for subject := range info.State.Subjects {
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(subject, objectSubjects))
		if object := (&schemas.Object{Name: string(name)}); err != nil || !object.BelongsTo(id) {
			continue
		}
		if err := b.eraseObject(ctx, string(name)); err != nil {
			return err
		}
	}
	return nil
}

// eraseObject erases an object that the leader has.
func (b *Bus) eraseObject(ctx context.Context, name string) error {
	err := b.confirmObject(ctx, name)
	if err == nil {
		err = b.overLag(ctx, name, func() error {
			store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
			if err != nil {
				return err
			}
			return store.Delete(ctx, name)
		})
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return wrap("erase body "+name, err)
}

// offloadRequest gives the request as it is stored: with a large body in LLM_OBJECTS.
func (b *Bus) offloadRequest(ctx context.Context, r schemas.Request) (schemas.Request, error) {
	if len(r.Body) > schemas.InlineBytes && r.Object == nil {
		object, err := b.putObject(ctx, r.Identity, r.Body)
		if err != nil {
			return r, err
		}
		r.Object = object
	}
	if r.Object != nil {
		r.Body = nil
	}
	return r, nil
}

func (b *Bus) offloadFrame(ctx context.Context, id schemas.Identity, f *schemas.Frame) (err error) {
	if len(f.Data) <= schemas.InlineBytes || f.Object != nil {
		return nil
	}
	f.Object, err = b.putObject(ctx, id, f.Data)
	return err
}

func (b *Bus) resolveFrame(ctx context.Context, f *schemas.Frame) (err error) {
	if f.Object == nil || len(f.Data) > 0 {
		return nil
	}
	f.Data, err = b.getObject(ctx, f.Object)
	return err
}

// resolveSurely is resolveFrame for a reader, whose answer must not break off because the server is away for a moment.
func (b *Bus) resolveSurely(ctx context.Context, f *schemas.Frame) error {
	if f.Object == nil {
		return nil
	}
	return surely(ctx, func() error { return b.resolveFrame(ctx, f) })
}

// surely repeats a read until it works, or never will, or for as long as a write may take.
func surely(ctx context.Context, read func() error) error {
	deadline := time.Now().Add(resolveTimeout)
	for {
		err := read()
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) || hopeless(err) || time.Now().After(deadline) {
			return err
		}
		if waitErr := sleep(ctx, retryWait(nil)); waitErr != nil {
			return waitErr
		}
	}
}

// Body is the body of a request, read from LLM_OBJECTS when it is too large for a message.
func (b *Bus) Body(ctx context.Context, r *schemas.Request) ([]byte, error) {
	if r.Object != nil && r.Object.Size > schemas.MaxBodyBytes {
		return nil, fmt.Errorf("body %s has %d bytes, more than a request may have: %w", r.Object.Name, r.Object.Size, ErrDamaged)
	}
	if r.Object == nil {
		return r.Body, nil
	}
	return b.getObject(ctx, r.Object)
}
