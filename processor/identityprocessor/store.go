package identityprocessor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// pageSize is how many entry numbers are set aside in one write, and read at once at the start.
const pageSize = 1024

// keyPages holds the pages in which entries may be, by their first number, the last one included.
const keyPages = "pages"

// retryAfter is how long after a failed deletion the next attempt is made.
const retryAfter = time.Second

var errPages = errors.New("the storage has a damaged entry `pages`: use an empty one, or the one that was written by this processor")

// store keeps held spans where they survive the process. The held spans of one batch are one entry:
// written before the batch is acknowledged, deleted once all of them have left. A nil store keeps
// nothing.
type store struct {
	client storage.Client

	mu      sync.Mutex
	pages   map[uint64]int // entries that are there, by the first number of their page
	next    uint64         // of the next entry
	overdue []uint64       // entries that could not be deleted
	failed  time.Time      // when not
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
	s := &store{client: client, pages: map[uint64]int{}}
	if err := s.readPages(ctx); err != nil {
		return nil, fmt.Errorf("`storage: %s` cannot be read: %w", id, errors.Join(err, client.Close(ctx)))
	}
	return s, nil
}

func (s *store) readPages(ctx context.Context) error {
	text, err := s.client.Get(ctx, keyPages)
	if err != nil {
		return err
	}
	for ; len(text) >= 8; text = text[8:] {
		page := binary.BigEndian.Uint64(text)
		if page%pageSize != 0 || page < s.next {
			return errPages
		}
		s.pages[page], s.next = 0, page+pageSize
	}
	if len(text) > 0 {
		return errPages
	}
	return nil
}

// load reads every entry of an earlier process.
func (s *store) load(ctx context.Context, each func(number uint64, batch ptrace.Traces, err error)) error {
	var decoder ptrace.ProtoUnmarshaler
	for _, page := range slices.Sorted(maps.Keys(s.pages)) {
		operations := make([]*storage.Operation, pageSize)
		for i := range operations {
			operations[i] = storage.GetOperation(keyOf(page + uint64(i)))
		}
		if err := s.client.Batch(ctx, operations...); err != nil {
			return err
		}
		for i, operation := range operations {
			if operation.Value != nil {
				s.count(page+uint64(i), 1)
				batch, err := decoder.UnmarshalTraces(operation.Value)
				each(page+uint64(i), batch, err)
			}
		}
		s.count(page, 0)
	}
	return nil
}

// put writes the held spans of one batch.
func (s *store) put(ctx context.Context, holds []*hold, words *vocabulary) error {
	if s == nil || len(holds) == 0 {
		return nil
	}
	batch, _ := assemble(holds, words, false)
	value, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(batch)
	if err != nil {
		return err
	}
	number, err := s.reserve(ctx)
	if err != nil {
		return err
	}
	if err := s.client.Set(ctx, keyOf(number), value); err != nil {
		return errors.Join(err, s.remove(ctx, []uint64{number}))
	}
	stored := &entry{number: number, left: len(holds)}
	for _, h := range holds {
		h.entry = stored
	}
	return nil
}

// reserve hands out the number of an entry. Before the first of a page it writes which pages there
// are.
func (s *store) reserve(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next%pageSize == 0 {
		maps.DeleteFunc(s.pages, func(_ uint64, entries int) bool { return entries == 0 })
		var text []byte
		for _, page := range append(slices.Sorted(maps.Keys(s.pages)), s.next) {
			text = binary.BigEndian.AppendUint64(text, page)
		}
		if err := s.client.Set(ctx, keyPages, text); err != nil {
			return 0, err
		}
	}
	number := s.next
	s.next++
	s.pages[number-number%pageSize]++
	return number, nil
}

// remove deletes the entries of which no span is left. Those that it cannot delete it tries again;
// what is left of them at the end is read at the next start.
func (s *store) remove(ctx context.Context, numbers []uint64) error {
	if s == nil {
		return nil
	}
	numbers = append(s.takeOverdue(len(numbers) > 0), numbers...)
	if len(numbers) == 0 {
		return nil
	}
	operations := make([]*storage.Operation, len(numbers))
	for i, number := range numbers {
		operations[i] = storage.DeleteOperation(keyOf(number))
	}
	err := s.client.Batch(ctx, operations...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.overdue, s.failed = append(s.overdue, numbers...), time.Now()
		return err
	}
	for _, number := range numbers {
		s.count(number, -1)
	}
	return nil
}

// takeOverdue takes over what could not be deleted: at any occasion, else after a while.
func (s *store) takeOverdue(occasion bool) (numbers []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if occasion || time.Since(s.failed) >= retryAfter {
		numbers, s.overdue = s.overdue, nil
	}
	return numbers
}

// count adds to the entries of a page. An empty one is let go, unless the next entry is in it.
func (s *store) count(number uint64, more int) {
	page := number - number%pageSize
	s.pages[page] += more
	if s.pages[page] == 0 && page+pageSize <= s.next {
		delete(s.pages, page)
	}
}

func (s *store) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return errors.Join(s.remove(ctx, nil), s.client.Close(ctx))
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
