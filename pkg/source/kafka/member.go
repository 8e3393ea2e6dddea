package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace.dev/pkg/source"
)

const (
	// maxHeld bounds the bytes of records that a source holds, minHeld what a partition may hold however many there are.
	maxHeld, minHeld = 64 << 20, 1 << 20
	// leaveTimeout bounds the leaving of the group.
	leaveTimeout = 3 * time.Second
	// maxPoll bounds the records taken from the client at once.
	maxPoll = 5000
)

// member is the source's member of the consumer group.
type member struct {
	source  *Source
	cluster *cluster
	client  *kgo.Client
	abort   context.CancelFunc // ends the client's requests
	fixed   offsets

	mu         sync.Mutex
	partitions map[place]*partition
	// committing is held while offsets are committed, so that none are after their partition was given up.
	committing sync.Mutex
}

// A member lives as long as its source, not as the call that makes it.
func newMember(s *Source, c *cluster, topics []string, fixed offsets) (*member, error) {
	m := &member{source: s, cluster: c, fixed: fixed, partitions: map[place]*partition{}}
	ctx, abort := context.WithCancel(context.Background())
	m.abort = abort
	opts := append(s.opts.connection(hooks{s}), s.opts.consumer(topics)...)
	client, err := kgo.NewClient(append(opts, kgo.WithContext(ctx),
		kgo.OnPartitionsAssigned(m.assigned), kgo.OnPartitionsRevoked(m.revoked), kgo.OnPartitionsLost(m.lost),
		kgo.AdjustFetchOffsetsFn(m.adjust),
	)...)
	if err != nil {
		abort()
		return nil, fmt.Errorf("make a client: %w", err)
	}
	m.client = client
	return m, nil
}

// run consumes until ctx ends.
func (m *member) run(ctx context.Context) {
	var background sync.WaitGroup
	background.Go(func() { m.every(ctx, m.source.opts.CommitEvery, func() { m.commit(ctx, m.all()) }) })
	background.Go(func() { m.every(ctx, lookEvery, func() { m.look(ctx) }) })
	for ctx.Err() == nil {
		m.poll(ctx)
	}
	background.Wait()
	m.release(m.all()) // what is under way is finished after ctx has ended
	m.leave(context.WithoutCancel(ctx))
}

// leave leaves the group. The client waits for a join that is under way, which may take until other members are found dead. It is then
// ended, and the member taken out all the same: the group would make it a member that does nothing, and may have it divide the partitions.
func (m *member) leave(ctx context.Context) {
	leave, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	err := m.client.LeaveGroupContext(leave)
	id, _ := m.client.GroupMetadata()
	m.abort()
	m.client.CloseAllowingRebalance()
	if err != nil && id != "" && m.source.opts.Instance == "" {
		m.cluster.remove(ctx, id) // the group will notice otherwise
	}
}

func (m *member) every(ctx context.Context, interval time.Duration, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// poll hands the records that are there to their partitions. It never waits for these, so that one which is held up holds
// up no other.
func (m *member) poll(ctx context.Context) {
	fetches := m.client.PollRecords(ctx, maxPoll)
	defer m.client.AllowRebalance()
	if ctx.Err() != nil {
		return
	}
	fetches.EachError(func(topic string, partition int32, err error) { m.failed(ctx, place{topic, partition}, err) })
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := max(int64(maxHeld/max(len(m.partitions), 1)), minHeld)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		p := m.partitions[place{f.Topic, f.Partition}]
		if p == nil || len(f.Records) == 0 {
			return
		}
		p.locked(func() { p.end = max(p.end, f.LastStableOffset, f.Records[len(f.Records)-1].Offset+1) })
		p.add(f.Records, limit)
	})
}

// failed takes note that a partition cannot be fetched. Most errors pass by themselves.
func (m *member) failed(ctx context.Context, at place, err error) {
	m.source.warn(ctx, err, slog.String("topic", at.topic), slog.Int("partition", int(at.id)))
	if tooLarge, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		m.source.setStuck(at, ReasonBatchTooLarge, fmt.Sprintf("the batch at offset %d of partition %d of topic %s becomes larger than %d MiB: "+
			"pause the source and set the group's offset there to %d to pass it over",
			tooLarge.Offset, at.id, at.topic, maxUnpackedBytes>>20, tooLarge.NextOffset))
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if p := m.partitions[at]; p != nil {
			p.refuse()
			reason, message := explain(fmt.Errorf("fetch from topic %s: %w", at.topic, err), m.source.opts.Group)
			m.source.setStuck(at, reason, message)
		}
	}
}

// assigned takes partitions up.
func (m *member) assigned(_ context.Context, client *kgo.Client, added map[string][]int32) {
	m.mu.Lock()
	for topic, ids := range added {
		for _, id := range ids {
			flow := flow{client, map[string][]int32{topic: {id}}}
			flow.resume()
			m.source.setFree(place{topic, id})
			m.partitions[place{topic, id}] = newPartition(place{topic, id}, &m.source.work, flow)
		}
	}
	m.mu.Unlock()
	if len(added) == 0 {
		m.source.set(true, "", "")
	}
}

// adjust says where partitions begin, before anything is fetched from them: where the group has no offset, at the one that
// was fixed.
func (m *member) adjust(_ context.Context, from map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	m.mu.Lock()
	for topic, ids := range from {
		for id, offset := range ids {
			committed := offset.EpochOffset().Offset >= 0
			at, fixed := m.fixed[topic][id]
			if !committed && fixed {
				offset = kgo.NewOffset().At(at)
				ids[id] = offset
			}
			if p := m.partitions[place{topic, id}]; p != nil && (committed || fixed) {
				p.locked(func() {
					p.tracker.start(offset.EpochOffset().Offset)
					if committed {
						p.committed = p.tracker.position
					}
				})
			}
		}
	}
	m.mu.Unlock()
	m.source.set(true, "", "")
	return from, nil
}

// revoked gives partitions up: what is under way is finished, within bounds, and its offsets are committed.
func (m *member) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	m.release(m.some(gone)) // the client's context says nothing about deliveries
}

// lost gives partitions up that are others' already.
func (m *member) lost(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	if len(gone) > 0 {
		m.source.set(false, ReasonRebalancing, "the group took the partitions away: waiting for others")
	}
	now, cancel := context.WithCancel(ctx)
	cancel()
	partitions := m.some(gone)
	closeAll(now, partitions)
	m.forget(partitions)
}

// release finishes what is under way in partitions, commits their offsets, and forgets them.
func (m *member) release(partitions []*partition) {
	drain, cancel := context.WithTimeout(context.Background(), m.source.opts.Drain)
	defer cancel()
	closeAll(drain, partitions)
	commit, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	m.commit(commit, partitions)
	m.forget(partitions)
}

func closeAll(wait context.Context, partitions []*partition) {
	var closing sync.WaitGroup
	for _, p := range partitions {
		closing.Go(func() { p.close(wait) })
	}
	closing.Wait()
}

// forget removes partitions. It waits for a commit under way, which may be about them.
func (m *member) forget(partitions []*partition) {
	m.committing.Lock()
	defer m.committing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range partitions {
		delete(m.partitions, p.place)
		m.source.setFree(p.place)
	}
}

func (m *member) all() []*partition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.partitions))
}

func (m *member) some(which map[string][]int32) []*partition {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*partition
	for topic, ids := range which {
		for _, id := range ids {
			if p := m.partitions[place{topic, id}]; p != nil {
				found = append(found, p)
			}
		}
	}
	return found
}

// commit commits the offsets of partitions, as far as they have changed.
func (m *member) commit(ctx context.Context, partitions []*partition) {
	m.committing.Lock()
	defer m.committing.Unlock()
	changed := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range partitions {
		at, ok := p.uncommitted()
		if !ok || !m.has(p) {
			continue
		}
		if changed[p.place.topic] == nil {
			changed[p.place.topic] = map[int32]kgo.EpochOffset{}
		}
		changed[p.place.topic][p.place.id] = at
	}
	if len(changed) == 0 {
		return
	}
	m.client.CommitOffsetsSync(ctx, changed, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		m.committed(ctx, changed, response, err)
	})
}

func (m *member) has(p *partition) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.partitions[p.place] == p
}

// committed takes note of the answer to a commit. What failed is committed again by the next, and if the process ends
// before, those records are read again.
func (m *member) committed(ctx context.Context, offered map[string]map[int32]kgo.EpochOffset, response *kmsg.OffsetCommitResponse, err error) {
	if err != nil {
		if ctx.Err() == nil {
			m.source.warn(ctx, fmt.Errorf("commit offsets: %w", err))
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, topic := range response.Topics {
		for _, answer := range topic.Partitions {
			p := m.partitions[place{topic.Topic, answer.Partition}]
			if p != nil && answer.ErrorCode == 0 {
				p.locked(func() { p.committed = offered[topic.Topic][answer.Partition].Offset })
			}
		}
	}
}

// look looks for topics that were missing, for the ends of partitions, and whether those may be fetched by now that were not to be.
func (m *member) look(ctx context.Context) {
	for _, p := range m.all() {
		if p.tryAgain() {
			m.source.setFree(p.place)
		}
	}
	there, missing, err := m.cluster.topics(ctx, m.source.opts.Topics)
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		reason, message := explain(err, m.source.opts.Group)
		m.source.setStuck(place{}, reason, message)
	}
	if err != nil {
		m.source.opts.Logger.DebugContext(ctx, "cannot look at topics", slog.Any("error", err))
		return
	}
	m.source.setFree(place{})
	m.addTopics(ctx, there, missing)
	ends, err := m.cluster.ends(ctx, there)
	if err != nil {
		m.source.opts.Logger.DebugContext(ctx, "cannot look at the ends of partitions", slog.Any("error", err))
		return
	}
	for _, p := range m.all() {
		if end, ok := ends[p.place.topic][p.place.id]; ok {
			p.locked(func() { p.end = max(p.end, end) })
		}
	}
}

// addTopics takes up topics that were missing and are there now, from their beginning.
func (m *member) addTopics(ctx context.Context, there, missing []string) {
	known := m.client.GetConsumeTopics()
	var fresh []string
	for _, topic := range there {
		if !slices.Contains(known, topic) {
			fresh = append(fresh, topic)
		}
	}
	if len(fresh) > 0 {
		starts, err := m.cluster.fix(ctx, fresh, m.cluster.admin.ListStartOffsets)
		if err != nil {
			return
		}
		m.mu.Lock()
		maps.Copy(m.fixed, starts)
		m.mu.Unlock()
		m.client.AddConsumeTopics(fresh...)
	}
	m.source.setMissing(missing)
}

// report adds to a status what is known of the partitions.
func (m *member) report(status *source.Status) {
	now := time.Now()
	for _, p := range m.all() {
		state := p.state()
		status.Assigned++
		status.Lag += state.lag
		status.Held += state.held
		if !state.oldest.IsZero() {
			status.Oldest = max(status.Oldest, now.Sub(state.oldest))
		}
	}
}
