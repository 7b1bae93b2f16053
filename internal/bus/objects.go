package bus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// objectsStream is what the object store is made of.
const objectsStream = "OBJ_" + schemas.BucketObjects

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

// getObject reads and verifies a body.
func (b *Bus) getObject(ctx context.Context, object *schemas.Object) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", schemas.BucketObjects, err)
	}
	info, err := store.GetInfo(ctx, object.Name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, fmt.Errorf("body %s: %w", object.Name, ErrNotFound)
	}
	if err == nil && info.Size != uint64(object.Size) { // before it takes memory: anyone may store one and name it
		return nil, fmt.Errorf("body %s has %d bytes instead of %d: %w", object.Name, info.Size, object.Size, ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("look up body %s: %w", object.Name, err)
	}
	data, err := getBytes(ctx, store, object.Name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, fmt.Errorf("body %s: %w", object.Name, ErrNotFound)
	}
	if errors.Is(err, jetstream.ErrDigestMismatch) {
		return nil, fmt.Errorf("read body %s: %w: %w", object.Name, ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read body %s: %w", object.Name, err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != object.Digest {
		return nil, fmt.Errorf("body %s does not match its digest: %w", object.Name, ErrDamaged)
	}
	return data, nil
}

// getBytes reads an object. It is not cancelled with ctx: the library leaves a goroutine behind for ever when that happens while
// the read begins.
func getBytes(ctx context.Context, store jetstream.ObjectStore, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*tryTimeout)
	defer cancel()
	return store.GetBytes(ctx, name)
}

// eraseObjects removes every body of a request: those that messages name, and those of writers that never got to write
// one. It looks through the names of all objects, as only erasure can afford.
func (b *Bus) eraseObjects(ctx context.Context, id schemas.Identity) error {
	store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if err != nil {
		return fmt.Errorf("open %s: %w", schemas.BucketObjects, err)
	}
	objects, err := store.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", schemas.BucketObjects, err)
	}
	for _, info := range objects {
		if object := (&schemas.Object{Name: info.Name}); !object.BelongsTo(id) {
			continue
		}
		if err := eraseFrom(ctx, store, info.Name); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bus) eraseObject(ctx context.Context, name string) error {
	store, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if err != nil {
		return fmt.Errorf("open %s: %w", schemas.BucketObjects, err)
	}
	return eraseFrom(ctx, store, name)
}

func eraseFrom(ctx context.Context, store jetstream.ObjectStore, name string) error {
	if err := store.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("erase body %s: %w", name, err)
	}
	return nil
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
