// Package access asks the API server of a cluster who a bearer token stands for and what they may do. It needs the
// rights to create TokenReviews and SubjectAccessReviews, and no other.
package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"millrace.dev/internal/adminapi"
)

// Audience is the one that a token may have which is for the admin API alone. One with that of the API server will do as
// well, since it is what people have.
const Audience = "millrace.dev"

const (
	// remember is how long an answer is used again, which is also how long one may be out of date.
	remember = 10 * time.Second
	// maxRemembered bounds the answers of either kind that are kept.
	maxRemembered = 1000
	// maxToken is how long a token may be, in bytes, to be shown to the API server; those of ServiceAccounts have about 1 KB.
	maxToken = 16 << 10
	// askTimeout bounds a question to the API server, the wait for its turn included.
	askTimeout = 10 * time.Second
	// Questions a second, and at a time after a pause. Whoever tries tokens at random makes one with each.
	askRate  = 20
	askBurst = 50
)

// Reviewer asks the API server, and remembers what it said for some seconds. It is safe for concurrent use.
type Reviewer struct {
	client    rest.Interface
	users     *memory[token, *authenticationv1.UserInfo] // nil for a token that is nobody's
	decisions *memory[question, bool]
}

var _ adminapi.Access = (*Reviewer)(nil)

// token is the hash of a bearer token: the secret itself is not kept.
type token [sha256.Size]byte

type question struct {
	by token
	do adminapi.Action
}

// New returns a Reviewer that asks the API server that c leads to. It does not connect yet.
func New(c *rest.Config) (*Reviewer, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{authenticationv1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("prepare the client for reviews: %w", err)
		}
	}
	c = rest.CopyConfig(c)
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.GroupVersion = &schema.GroupVersion{} // each request has a path of its own
	c.QPS, c.Burst = askRate, askBurst
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("prepare the client for reviews: %w", err)
	}
	return &Reviewer{
		client: client, users: newMemory[token, *authenticationv1.UserInfo](maxRemembered), decisions: newMemory[question, bool](maxRemembered),
	}, nil
}

// Allow implements [adminapi.Access].
func (r *Reviewer) Allow(ctx context.Context, bearer string, do adminapi.Action) (string, error) {
	if bearer == "" || len(bearer) > maxToken {
		return "", adminapi.ErrUnauthenticated
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	by := token(sha256.Sum256([]byte(bearer)))
	user, known := r.users.get(by)
	if !known {
		var err error
		if user, err = r.authenticate(ctx, bearer); err != nil {
			return "", err
		}
		r.users.put(by, user)
	}
	if user == nil {
		return "", adminapi.ErrUnauthenticated
	}
	allowed, known := r.decisions.get(question{by, do})
	if !known {
		var err error
		if allowed, err = r.authorize(ctx, user, do); err != nil {
			return "", err
		}
		r.decisions.put(question{by, do}, allowed)
	}
	if !allowed {
		return "", &adminapi.Denied{User: user.Username, Action: do}
	}
	return user.Username, nil
}

// authenticate returns nil if the token is nobody's.
func (r *Reviewer) authenticate(ctx context.Context, bearer string) (*authenticationv1.UserInfo, error) {
	review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: bearer}}
	ours := slices.Contains(audiences(bearer), Audience)
	if ours {
		review.Spec.Audiences = []string{Audience}
	}
	if err := r.create(ctx, "/apis/authentication.k8s.io/v1/tokenreviews", &review); err != nil {
		return nil, err
	}
	// An API server that knows no audiences takes a token for any, and says so by naming none.
	if !review.Status.Authenticated || review.Status.Error != "" || ours && !slices.Contains(review.Status.Audiences, Audience) {
		return nil, nil //nolint:nilnil // nobody is an answer, and no error
	}
	return &review.Status.User, nil
}

func (r *Reviewer) authorize(ctx context.Context, user *authenticationv1.UserInfo, do adminapi.Action) (bool, error) {
	resource, sub, _ := strings.Cut(do.Resource, "/")
	review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: do.Namespace, Verb: do.Verb, Group: cmp.Or(do.APIGroup, adminapi.APIGroup), Resource: resource, Subresource: sub,
		},
	}}
	for key, values := range user.Extra {
		review.Spec.Extra[key] = authorizationv1.ExtraValue(values)
	}
	if err := r.create(ctx, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review); err != nil {
		return false, err
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}

// create has the API server fill in the status of a review.
func (r *Reviewer) create(ctx context.Context, path string, review runtime.Object) error {
	if err := r.client.Post().AbsPath(path).Body(review).Do(ctx).Into(review); err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	return nil
}

// audiences are those that a JSON web token says it is for; none if it is no such token. Nothing is verified.
func audiences(bearer string) []string {
	parts := strings.Split(bearer, ".")
	if len(parts) != 3 {
		return nil
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var many struct {
		Audience []string `json:"aud"`
	}
	if json.Unmarshal(claims, &many) == nil {
		return many.Audience
	}
	var one struct {
		Audience string `json:"aud"`
	}
	if json.Unmarshal(claims, &one) != nil {
		return nil
	}
	return slices.DeleteFunc([]string{one.Audience}, func(a string) bool { return a == "" })
}
