package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
)

// The reasons for which a Kafka source is not ready, beside those of all sources.
const (
	// ReasonTopicMissing says that a topic does not exist. The source waits for it, and reads the others meanwhile.
	ReasonTopicMissing = "TopicMissing"
	// ReasonGroupInUse says that the group has members that divide partitions in another way.
	ReasonGroupInUse = "GroupInUse"
	// ReasonRebalancing says that the group has not given this member its partitions yet.
	ReasonRebalancing = "Rebalancing"
	// ReasonBatchTooLarge says that a compressed batch of records becomes larger than is permitted. Its partition stands still.
	ReasonBatchTooLarge = "BatchTooLarge"
	// ReasonAddressDenied says that a server has an address that must not be dialed.
	ReasonAddressDenied = "AddressDenied"
)

// explain returns the reason for an error of the cluster or the way there, and what to do about it. group is the source's.
func explain(err error, group string) (reason, message string) {
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var notTLS tls.RecordHeaderError
	switch {
	case isAny(err, kerr.SaslAuthenticationFailed, kerr.IllegalSaslState):
		return source.ReasonAuthenticationFailed, "the servers do not take the credentials: check user, password and type of spec.net.sasl: " + err.Error()
	case isAny(err, kerr.UnsupportedSaslMechanism):
		return source.ReasonAuthenticationFailed, "the servers do not offer the mechanism of spec.net.sasl.type: " + err.Error()
	case isAny(err, kerr.TopicAuthorizationFailed):
		return source.ReasonNotAuthorized, "allow the user the operation READ on the topics: " + err.Error()
	case isAny(err, kerr.GroupAuthorizationFailed):
		return source.ReasonNotAuthorized, "allow the user the operation READ on the consumer group " + group + ": " + err.Error()
	case isAny(err, kerr.ClusterAuthorizationFailed):
		return source.ReasonNotAuthorized, "allow the user to use the cluster: " + err.Error()
	case isAny(err, kerr.InconsistentGroupProtocol):
		return ReasonGroupInUse, "the consumer group is in use by other clients: stop them, or choose another spec.consumerGroup"
	case errors.Is(err, delivery.ErrDenied):
		return ReasonAddressDenied, err.Error()
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &notTLS), strings.Contains(err.Error(), "tls: "):
		return source.ReasonTLSFailed, "no trusted connection can be made: check spec.net.tls: " + err.Error()
	case errors.Is(err, io.EOF):
		return source.ReasonUnreachable, "the servers close the connection: check whether they expect spec.net.tls or spec.net.sasl: " + err.Error()
	default:
		return source.ReasonUnreachable, "check spec.bootstrapServers, and whether the servers run: " + err.Error()
	}
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
