package rocketmq

import (
	"errors"
	"fmt"
	"strings"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
)

// The reasons for which a RocketMQ source is not ready, beside those of all sources.
const (
	// ReasonTopicMissing says that a topic does not exist. The source waits for it, and reads the others meanwhile.
	ReasonTopicMissing = "TopicMissing"
	// ReasonGroupMissing says that the consumer group does not exist.
	ReasonGroupMissing = "GroupMissing"
	// ReasonGroupNotOrderly says that order is wanted of a group that the server keeps none for.
	ReasonGroupNotOrderly = "GroupNotOrderly"
	// ReasonFilterInvalid says that the server does not understand the filter.
	ReasonFilterInvalid = "FilterInvalid"
	// ReasonThrottled says that the server takes no more requests for now.
	ReasonThrottled = "Throttled"
	// ReasonServerFailed says that the server answers with an error of its own.
	ReasonServerFailed = "ServerFailed"
	// ReasonAddressDenied says that a server has an address that must not be dialed.
	ReasonAddressDenied = "AddressDenied"
)

// StatusError is an answer of the server other than OK.
type StatusError struct {
	Code    v2.Code
	Message string
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%s (%d): %s", e.Code, e.Code, e.Message) }

// errNotOrderly says that order is wanted of a group that has none.
var errNotOrderly = errors.New("the consumer group is not an orderly one")

// check returns an answer as an error; nil if it is OK.
func check(s *v2.Status) error {
	if s.GetCode() == v2.Code_OK {
		return nil
	}
	return &StatusError{s.GetCode(), s.GetMessage()}
}

func isCode(err error, code v2.Code) bool {
	var answer *StatusError
	return errors.As(err, &answer) && answer.Code == code
}

// explain returns the reason for an error of the server or the way there, and what to do about it.
func explain(err error, group string) (reason, message string) {
	var answer *StatusError
	switch {
	case errors.Is(err, errNotOrderly):
		return ReasonGroupNotOrderly, "spec.ordering is fifo, but the server keeps no order for the consumer group: " +
			"have it made an orderly one (mqadmin updateSubGroup -g " + group + " -o true), or write ordering: unordered"
	case errors.As(err, &answer):
		return explainAnswer(answer, group)
	case errors.Is(err, delivery.ErrDenied), strings.Contains(err.Error(), delivery.ErrDenied.Error()): // gRPC keeps only the text
		return ReasonAddressDenied, err.Error()
	}
	switch code := status.Code(err); {
	case strings.Contains(err.Error(), "group not found"): // that is how it is said when the client introduces itself
		return ReasonGroupMissing, "create the consumer group (mqadmin updateSubGroup -g " + group + "): " + err.Error()
	case code == codes.Unauthenticated:
		return source.ReasonAuthenticationFailed, "the server does not take the credentials: check spec.net.credentials: " + err.Error()
	case code == codes.PermissionDenied:
		return source.ReasonNotAuthorized, "allow the user to subscribe to the topics and the group: " + err.Error()
	case strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "x509: "):
		return source.ReasonTLSFailed, "no trusted connection can be made: check spec.net.tls: " + err.Error()
	case code == codes.Unimplemented, strings.Contains(err.Error(), "server preface"), strings.Contains(err.Error(), "frame too large"):
		return source.ReasonUnreachable, "what answers does not speak RocketMQ 5's gRPC: spec.endpoint must be the gRPC port of a proxy " +
			"(8081 unless set; RocketMQ 4, name servers and brokers do not speak it), and spec.net.tls be as that expects: " + err.Error()
	}
	return source.ReasonUnreachable, "check spec.endpoint, and whether the server runs: " + err.Error()
}

func explainAnswer(answer *StatusError, group string) (reason, message string) {
	switch answer.Code { //nolint:exhaustive // all others are told as they are
	case v2.Code_UNAUTHORIZED:
		if strings.Contains(answer.Message, "no permission") { // RocketMQ answers with this code for both, and says what is missing
			return source.ReasonNotAuthorized, "allow the user to subscribe to the topics and the group (mqadmin createAcl … -a Sub): " + answer.Error()
		}
		return source.ReasonAuthenticationFailed, "the server does not take the credentials: check spec.net.credentials: " + answer.Error()
	case v2.Code_FORBIDDEN:
		return source.ReasonNotAuthorized, "allow the user to subscribe to the topics and the group: " + answer.Error()
	case v2.Code_TOPIC_NOT_FOUND:
		return ReasonTopicMissing, "create the topic (mqadmin updateTopic): " + answer.Error()
	case v2.Code_CONSUMER_GROUP_NOT_FOUND:
		return ReasonGroupMissing, "create the consumer group (mqadmin updateSubGroup -g " + group + "): " + answer.Error()
	case v2.Code_ILLEGAL_FILTER_EXPRESSION:
		return ReasonFilterInvalid, "correct spec.filter: " + answer.Error()
	case v2.Code_TOO_MANY_REQUESTS:
		return ReasonThrottled, "the server takes no more requests for now: " + answer.Error()
	}
	return ReasonServerFailed, "the server answers " + answer.Error()
}
