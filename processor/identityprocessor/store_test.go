package identityprocessor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadatatest"
)

var (
	storageID = component.MustNewID("file_storage")
	errDisk   = errors.New("no space left on device")
)

// disk is a storage extension whose content outlives those who use it.
type disk struct {
	component.StartFunc
	component.ShutdownFunc
	mu      sync.Mutex
	content map[string][]byte
	fails   atomic.Bool
	reads   atomic.Int64
	opens   error
}

func newDisk() *disk { return &disk{content: map[string][]byte{}} }

func (d *disk) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{storageID: d}
}

func (d *disk) GetClient(context.Context, component.Kind, component.ID, string) (storage.Client, error) {
	return &diskClient{disk: d}, d.opens
}

func (d *disk) entries() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.content)
	if _, ok := d.content[keyPages]; ok {
		n--
	}
	return n
}

// diskClient is one process's way to the disk; a killed process has none.
type diskClient struct {
	*disk
	killed atomic.Bool
}

func (c *diskClient) Get(ctx context.Context, key string) ([]byte, error) {
	get := storage.GetOperation(key)
	err := c.Batch(ctx, get)
	return get.Value, err
}

func (c *diskClient) Set(ctx context.Context, key string, value []byte) error {
	return c.Batch(ctx, storage.SetOperation(key, value))
}

func (c *diskClient) Delete(ctx context.Context, key string) error {
	return c.Batch(ctx, storage.DeleteOperation(key))
}

func (c *diskClient) Batch(_ context.Context, operations ...*storage.Operation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails.Load() || c.killed.Load() {
		return errDisk
	}
	for _, o := range operations {
		switch o.Type {
		case storage.Get:
			c.reads.Add(1)
			o.Value = c.content[o.Key]
		case storage.Set:
			c.content[o.Key] = o.Value
		case storage.Delete:
			delete(c.content, o.Key)
		}
	}
	return nil
}

func (c *diskClient) Close(context.Context) error { return nil }

// killable is a processor that can end as by SIGKILL: nothing it does reaches anybody any more.
type killable struct {
	*identityProcessor
	cut atomic.Bool
	to  consumer.Traces
}

func (k *killable) Capabilities() consumer.Capabilities { return k.to.Capabilities() }

func (k *killable) kill() {
	k.cut.Store(true)
	k.store.client.(*diskClient).killed.Store(true)
}

// next is what the processor sends to.
type next struct{ *killable }

func (n next) ConsumeTraces(ctx context.Context, batch ptrace.Traces) error {
	if n.cut.Load() {
		return errDown
	}
	return n.to.ConsumeTraces(ctx, batch)
}

func startOn(t testing.TB, d *disk, cfg *Config, to consumer.Traces) *killable {
	cfg.Storage = &storageID
	k := &killable{to: to}
	p, err := newProcessor(processortest.NewNopSettings(metadata.Type), cfg, next{k})
	require.NoError(t, err)
	require.NoError(t, p.Start(context.Background(), d))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	k.identityProcessor = p
	return k
}

// Killed at any moment and started again on the same disk, under a next consumer that refuses at
// random: every acknowledged span comes out, with the oracle's identity or none.
func TestKilledProcessorsLoseNothing(t *testing.T) {
	for seed := range uint64(rounds() / 4) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 6))
			spans := forest(random, 4, 1+random.IntN(60))
			moody := &moodySink{random: rand.New(rand.NewPCG(seed, 7)), spoils: seed%2 == 0}
			d := newDisk()
			cfg := createDefaultConfig().(*Config)
			cfg.Upward = upwardOff
			p := startOn(t, d, cfg, moody)
			for _, batch := range cut(random, shuffled(random, spans)) {
				send(t, p, batch)
				if random.IntN(8) == 0 {
					p.kill()
					p = startOn(t, d, cfg, moody)
				}
			}
			require.NoError(t, p.Shutdown(context.Background()))
			for d.entries() > 0 { // refused at shutdown
				require.NoError(t, startOn(t, d, cfg, moody).Shutdown(context.Background()))
			}
			checkAtLeastOnce(t, seed, spans, moody.AllTraces(), sameOrNothing(oracleOf(spans)))
		})
	}
}

// However long one entry stays, a start reads the pages that have some, not every number since.
func TestStartReadsOnlyWhatIsThere(t *testing.T) {
	d, sink := newDisk(), new(consumertest.TracesSink)
	cfg := createDefaultConfig().(*Config)
	cfg.Quiet, cfg.Wait, cfg.TTL = time.Hour, time.Hour, time.Hour
	p := startOn(t, d, cfg, sink)
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(3, 2)})))
	for n := range 8 * pageSize {
		batch := []plain{unknown(5, 4).in(2)}
		require.NoError(t, p.ConsumeTraces(context.Background(), batchOf(batch)))
		if n%100 == 0 {
			require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{known(4, 0).in(2)})))
			p.settleDown()
		}
		if n%100 == 99 {
			p.mu.Lock()
			p.memory.forget(p.memory.traces.get(pcommon.TraceID{15: 2}), reasonTraces, p.now())
			p.mu.Unlock()
			p.wake()
			p.settleDown()
		}
	}
	p.kill()
	d.reads.Store(0)
	p = startOn(t, d, cfg, sink)
	assert.LessOrEqual(t, int(d.reads.Load()), 2*pageSize+1)
	held, _ := (&bench{identityProcessor: p.identityProcessor}).level()
	assert.Positive(t, held)
}

func checkAtLeastOnce(t *testing.T, seed uint64, sent []plain, out []ptrace.Traces, right verdictOn) {
	byName, found := map[string]plain{}, map[string]bool{}
	for _, s := range sent {
		byName[s.name] = s
	}
	for span := range spansOf(out) {
		found[span.Name()] = true
		s := byName[span.Name()]
		require.Truef(t, right(s, read(span)), "seed %d: span %+v came out as %+v", seed, s, read(span))
	}
	require.Lenf(t, found, len(sent), "seed %d", seed)
}

func TestHeldSpanSurvivesAndIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sink := newDisk(), new(consumertest.TracesSink)
		p := startOn(t, d, createDefaultConfig().(*Config), sink)
		require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(3, 2), unknown(5, 4).in(2)})))
		assert.Equal(t, 1, d.entries())
		p.kill()
		p = startOn(t, d, createDefaultConfig().(*Config), sink)
		assert.Zero(t, sink.SpanCount())
		require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{known(2, 1)})))
		p.settleDown()
		assert.Equal(t, 2, sink.SpanCount())
		assert.Equal(t, 1, d.entries(), "one span of the entry is still held")
		time.Sleep(11 * time.Second)
		assert.Equal(t, 3, sink.SpanCount())
		assert.Zero(t, d.entries())
	})
}

// What is refused leaves no entry behind, except where nobody sends it again.
func TestRefusedBatchesAreNotStored(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		entries int
	}{
		"retryable": {errDown, 0},
		"permanent": {consumererror.NewPermanent(errDown), 1},
		"partial":   {consumererror.NewTraces(errDown, ptrace.NewTraces()), 0},
	} {
		t.Run(name, func(t *testing.T) {
			d, sink := newDisk(), &refusingSink{}
			p := startOn(t, d, createDefaultConfig().(*Config), sink)
			sink.refuse(test.err)
			require.Error(t, p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)})))
			assert.Equal(t, test.entries, d.entries())
		})
	}
}

// A full disk pushes back; nothing is acknowledged that is not stored.
func TestFailingStoragePushesBack(t *testing.T) {
	d, sink := newDisk(), new(consumertest.TracesSink)
	p := startOn(t, d, createDefaultConfig().(*Config), sink)
	d.fails.Store(true)
	err := p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)}))
	require.ErrorIs(t, err, errDisk)
	assert.False(t, consumererror.IsPermanent(err))
	assert.Zero(t, sink.SpanCount())
	d.fails.Store(false)
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{known(1, 0), unknown(3, 2)})))
	d.fails.Store(true)
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(2, 1)})), "what cannot be deleted was delivered all the same")
	p.settleDown()
	assert.Equal(t, 3, sink.SpanCount())
	assert.Equal(t, 1, d.entries())
	d.fails.Store(false)
	require.Eventually(t, func() bool { return d.entries() == 0 }, 5*time.Second, time.Millisecond, "it is deleted once that is possible")
}

// Many entries, more than a page has, over several lives.
func TestEntriesOfSeveralPages(t *testing.T) {
	d, sink := newDisk(), new(consumertest.TracesSink)
	cfg := createDefaultConfig().(*Config)
	p := startOn(t, d, cfg, sink)
	for n := range 2*pageSize + 10 {
		batch := batchOf([]plain{unknown(3, 2)})
		spansIn(batch).At(0).SetTraceID([16]byte{14: byte(n >> 8), 15: byte(n)})
		require.NoError(t, p.ConsumeTraces(context.Background(), batch))
		if n == pageSize/2 {
			p.kill()
			p = startOn(t, d, cfg, sink)
		}
	}
	p.kill()
	p = startOn(t, d, cfg, sink)
	require.NoError(t, p.Shutdown(context.Background()))
	assert.Equal(t, 2*pageSize+10, sink.SpanCount())
	assert.Zero(t, d.entries())
}

func TestShutdownLeavesInTheStorageWhatIsRefused(t *testing.T) {
	d, sink := newDisk(), &refusingSink{}
	p := startOn(t, d, createDefaultConfig().(*Config), sink)
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(3, 2)})))
	sink.refuse(errDown)
	require.NoError(t, p.Shutdown(context.Background()))
	assert.Equal(t, 1, d.entries())
}

func TestDamagedEntryIsCountedAndDropped(t *testing.T) {
	d, b := newDisk(), newBench(t, nil)
	p := startOn(t, d, createDefaultConfig().(*Config), b.sink)
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(3, 2)})))
	require.NoError(t, p.ConsumeTraces(context.Background(), batchOf([]plain{unknown(4, 2)})))
	p.kill()
	d.content[keyOf(0)] = []byte("damaged")
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = &storageID
	again, err := newProcessor(metadatatest.NewSettings(b.telemetry), cfg, b.sink)
	require.NoError(t, err)
	require.NoError(t, again.Start(context.Background(), d))
	require.NoError(t, again.Shutdown(context.Background()))
	assert.Equal(t, []string{"4"}, b.out())
	one := []metricdata.DataPoint[int64]{{Value: 1}}
	metadatatest.AssertEqualProcessorIdentityStorageFailures(t, b.telemetry, one, metricdatatest.IgnoreTimestamp())
	metadatatest.AssertEqualProcessorIdentitySpansRestored(t, b.telemetry, one, metricdatatest.IgnoreTimestamp())
}

// A storage that does not work stops the start, and the error says what to do.
func TestStartRefusesAStorageThatDoesNotWork(t *testing.T) {
	other := newDisk()
	other.opens = errDisk
	damaged := newDisk()
	damaged.content[keyPages] = []byte{1}
	unreadable := newDisk()
	unreadable.fails.Store(true)
	for says, host := range map[string]component.Host{
		"`storage: file_storage` is not among `service::extensions`": componenttest.NewNopHost(),
		"`storage: file_storage` cannot store":                       notStoring{},
		"`storage: file_storage` cannot be opened":                   other,
		"damaged entry `pages`":                                      damaged,
		"`storage: file_storage` cannot be read":                     unreadable,
	} {
		cfg := createDefaultConfig().(*Config)
		cfg.Storage = &storageID
		p, err := newProcessor(processortest.NewNopSettings(metadata.Type), cfg, consumertest.NewNop())
		require.NoError(t, err)
		require.ErrorContains(t, p.Start(context.Background(), host), says)
		require.NoError(t, p.Shutdown(context.Background()))
	}
}

type notStoring struct{ component.Host }

func (notStoring) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{storageID: struct {
		component.StartFunc
		component.ShutdownFunc
	}{}}
}
