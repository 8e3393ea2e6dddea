package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// requestTimeout bounds each question to the cluster.
const requestTimeout = 10 * time.Second

// offsets are offsets by topic and partition.
type offsets map[string]map[int32]int64

func (o offsets) set(topic string, partition int32, offset int64) {
	if o[topic] == nil {
		o[topic] = map[int32]int64{}
	}
	o[topic][partition] = offset
}

// cluster asks a Kafka cluster about topics and groups.
type cluster struct {
	client *kgo.Client
	admin  *kadm.Client
	group  string
}

func newCluster(client *kgo.Client, group string) *cluster {
	return &cluster{client: client, admin: kadm.NewClient(client), group: group}
}

// topics tells the topics that exist from those that do not.
func (c *cluster) topics(ctx context.Context, wanted []string) (there, missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	details, err := c.admin.ListTopics(ctx, wanted...)
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	for _, topic := range wanted {
		switch d, ok := details[topic]; {
		case !ok, kerr.IsRetriable(d.Err) && len(d.Partitions) == 0:
			missing = append(missing, topic)
		case d.Err != nil:
			return nil, nil, fmt.Errorf("look at topic %s: %w", topic, d.Err)
		default:
			there = append(there, topic)
		}
	}
	return there, missing, nil
}

// lister lists an offset of each partition of topics.
type lister func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

// fix returns where the group begins in those of the topics of which it has no offset at all: at what list gives for them
// now. A topic of which it has some is known to it, so that a partition without one was added later. The offsets are also
// committed, which the cluster allows as long as the group has no members; if it has some, this one commits them once it
// has the partitions.
func (c *cluster) fix(ctx context.Context, topics []string, list lister) (offsets, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	topics, err := c.unknown(ctx, topics)
	if err != nil || len(topics) == 0 {
		return offsets{}, err
	}
	listed, err := list(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	fixed := offsets{}
	listed.Each(func(o kadm.ListedOffset) { fixed.set(o.Topic, o.Partition, o.Offset) })
	_, _ = c.admin.CommitOffsets(ctx, c.group, listed.Offsets())
	return fixed, nil
}

// unknown returns those of the topics of which the group has no offset.
func (c *cluster) unknown(ctx context.Context, topics []string) ([]string, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	committed, err := c.admin.FetchOffsetsForTopics(ctx, c.group, topics...)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return topics, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch the group's offsets: %w", err)
	}
	var unknown []string
	for _, topic := range topics {
		known := false
		for _, o := range committed[topic] {
			if o.Err != nil {
				return nil, fmt.Errorf("fetch the group's offsets of topic %s: %w", topic, o.Err)
			}
			known = known || o.At >= 0
		}
		if !known {
			unknown = append(unknown, topic)
		}
	}
	return unknown, nil
}

// remove takes a member out of the group, as that itself would do.
func (c *cluster) remove(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group, request.MemberID = c.group, id
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = id
	request.Members = append(request.Members, member)
	_, _ = request.RequestWith(ctx, c.client)
}

// ends returns the offset after the last record that may be read, of each partition of topics.
func (c *cluster) ends(ctx context.Context, topics []string) (offsets, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := c.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	found := offsets{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			found.set(o.Topic, o.Partition, o.Offset)
		}
	})
	return found, nil
}
