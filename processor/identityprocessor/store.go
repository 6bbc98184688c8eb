package identityprocessor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// reservation is how many entry numbers are set aside in one write.
const reservation = 1024

// keyBounds holds the numbers between which entries may be.
const keyBounds = "bounds"

var errBounds = errors.New("the storage has a damaged entry `bounds`: use an empty one, or the one that was written by this processor")

// store keeps held spans where they survive the process. The held spans of one batch are one entry:
// written before the batch is acknowledged, deleted once all of them have left. A nil store keeps
// nothing.
type store struct {
	client storage.Client

	mu       sync.Mutex
	live     map[uint64]struct{} // entries that are there
	first    uint64              // no entry is before it
	next     uint64              // of the next entry
	reserved uint64              // entries below it need no write to the bounds
}

// entry is the stored form of the held spans of one batch.
type entry struct {
	number uint64
	left   int // spans that have not left yet
}

// openStore opens the storage that the configuration names.
func openStore(ctx context.Context, id component.ID, self component.ID, host component.Host) (*store, error) {
	found, ok := host.GetExtensions()[id]
	if !ok {
		return nil, fmt.Errorf("`storage: %s` is not among `service::extensions`: add it there, or remove `storage`", id)
	}
	extension, ok := found.(storage.Extension)
	if !ok {
		return nil, fmt.Errorf("`storage: %s` cannot store: name a storage extension, as `file_storage`", id)
	}
	client, err := extension.GetClient(ctx, component.KindProcessor, self, "")
	if err != nil {
		return nil, fmt.Errorf("`storage: %s` cannot be opened: %w", id, err)
	}
	s := &store{client: client, live: map[uint64]struct{}{}}
	if err := s.readBounds(ctx); err != nil {
		return nil, fmt.Errorf("`storage: %s` cannot be read: %w", id, errors.Join(err, client.Close(ctx)))
	}
	return s, nil
}

func (s *store) readBounds(ctx context.Context) error {
	bounds, err := s.client.Get(ctx, keyBounds)
	switch {
	case err != nil || bounds == nil:
		return err
	case len(bounds) != 16:
		return errBounds
	}
	s.first, s.reserved = binary.BigEndian.Uint64(bounds), binary.BigEndian.Uint64(bounds[8:])
	s.next = s.reserved
	return nil
}

// load reads every entry of an earlier process.
func (s *store) load(ctx context.Context, each func(number uint64, batch ptrace.Traces, err error)) error {
	var decoder ptrace.ProtoUnmarshaler
	for number := s.first; number < s.reserved; number++ {
		value, err := s.client.Get(ctx, keyOf(number))
		if err != nil {
			return err
		}
		if value != nil {
			s.live[number] = struct{}{}
			batch, err := decoder.UnmarshalTraces(value)
			each(number, batch, err)
		}
	}
	return nil
}

// put writes the held spans of one batch.
func (s *store) put(ctx context.Context, holds []*hold, words *vocabulary) error {
	if s == nil || len(holds) == 0 {
		return nil
	}
	value, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(assemble(holds, words))
	if err != nil {
		return err
	}
	number, err := s.reserve(ctx)
	if err != nil {
		return err
	}
	if err := s.client.Set(ctx, keyOf(number), value); err != nil {
		s.forget(number)
		return err
	}
	stored := &entry{number: number, left: len(holds)}
	for _, h := range holds {
		h.entry = stored
	}
	return nil
}

// reserve hands out the number of an entry; every so often it first writes how far they go.
func (s *store) reserve(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.reserved {
		bounds := binary.BigEndian.AppendUint64(nil, s.first)
		bounds = binary.BigEndian.AppendUint64(bounds, s.reserved+reservation)
		if err := s.client.Set(ctx, keyBounds, bounds); err != nil {
			return 0, err
		}
		s.reserved += reservation
	}
	number := s.next
	s.live[number] = struct{}{}
	s.next++
	return number, nil
}

// remove deletes the entries of which no span is left. Those that it cannot delete are read again
// at the next start.
func (s *store) remove(ctx context.Context, numbers []uint64) error {
	if s == nil || len(numbers) == 0 {
		return nil
	}
	operations := make([]*storage.Operation, len(numbers))
	for i, number := range numbers {
		operations[i] = storage.DeleteOperation(keyOf(number))
	}
	if err := s.client.Batch(ctx, operations...); err != nil {
		return err
	}
	s.forget(numbers...)
	return nil
}

func (s *store) forget(numbers ...uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range numbers {
		delete(s.live, number)
	}
	for s.first < s.next {
		if _, live := s.live[s.first]; live {
			return
		}
		s.first++
	}
}

func (s *store) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return s.client.Close(ctx)
}

func keyOf(number uint64) string { return "held/" + strconv.FormatUint(number, 36) }

// finished counts spans out of their entries and returns the entries that are done with.
func finished(holds []*hold) (numbers []uint64) {
	for _, h := range holds {
		if h.entry == nil {
			continue
		}
		if h.entry.left--; h.entry.left == 0 {
			numbers = append(numbers, h.entry.number)
		}
	}
	return numbers
}
