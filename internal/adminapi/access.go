package adminapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// APIGroup is the API group of the resources that rights to the API are about. The API server serves none of them: they are
// there to be named in roles.
const APIGroup = "millrace.dev"

// defaultRecheck is how often it is asked again whether somebody may go on with what they have begun.
const defaultRecheck = time.Minute

// Access says who may do what.
type Access interface {
	// Allow returns the name of the user whom the bearer token stands for, if they may do what is asked. The error is
	// [ErrUnauthenticated] if the token, which may be empty, is nobody's, and a [*Denied] if they may not; any other says
	// that it cannot be found out now.
	Allow(ctx context.Context, token string, do Action) (user string, _ error)
}

// Action is what somebody wants to do, in the words of Kubernetes' authorization.
type Action struct {
	Right
	// Namespace is empty for all namespaces.
	Namespace string
}

// Right is a verb and what it is about.
type Right struct {
	// Verb is as in a role, such as get.
	Verb string
	// APIGroup is [APIGroup] unless set.
	APIGroup string
	// Resource is as in a role, with its subresource if there is one: parkedevents/data.
	Resource string
}

// String is the right as one says it: "list parkedevents.millrace.dev in namespace shop".
func (a Action) String() string {
	resource, sub, found := strings.Cut(a.Resource, "/")
	text := a.Verb + " " + resource + "." + cmp.Or(a.APIGroup, APIGroup)
	if found {
		text += "/" + sub
	}
	if a.Namespace == "" {
		return text + " in all namespaces"
	}
	return text + " in namespace " + a.Namespace
}

// ErrUnauthenticated says that a token is nobody's.
var ErrUnauthenticated = errors.New("the bearer token is not valid, or expired")

// Denied says that somebody may not do something.
type Denied struct {
	User   string
	Action Action
}

// Error names the user and what they may not do.
func (d *Denied) Error() string { return fmt.Sprintf("user %q may not %s", d.User, d.Action) }

// The rights that the API asks for. Roles that give them are in config/system/user-roles.yaml.
var (
	listParked    = Right{Verb: "list", Resource: "parkedevents"}
	readParked    = Right{Verb: "get", Resource: "parkedevents/data"}
	redriveParked = Right{Verb: "create", Resource: "parkedevents/redrive"}
	purgeParked   = Right{Verb: "deletecollection", Resource: "parkedevents"}
	readStats     = Right{Verb: "get", Resource: "statistics"}
	readJournal   = Right{Verb: "get", Resource: "journal"}
	watchJournal  = Right{Verb: "watch", Resource: "journal"}
)

// The rights that other parts of the admin port ask for, in all namespaces.
var (
	// ReadProfiles is needed for profiles, which hold parts of the program's memory.
	ReadProfiles = Right{Verb: "get", Resource: "profiles"}
	// SetLogLevel is needed to change what is logged.
	SetLogLevel = Right{Verb: "update", Resource: "loglevel"}
)

// handle serves what matches the pattern to those who have the right in the namespace that the request is about, see
// [namespaceOf]. What is put into the mux in another way is served to nobody where there is an Access.
func (h *Handler) handle(pattern string, right Right, serve http.HandlerFunc) {
	h.guarded[pattern] = true
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		namespace, p := namespaceOf(r)
		if p != nil {
			writeProblem(w, p)
			return
		}
		h.guard.serve(w, r, Action{Right: right, Namespace: namespace}, serve)
	})
}

// namespaceOf returns the namespace that a request is about: that in its path, in the parameter namespace, or in the
// parameter broker. It is empty if the request is about all namespaces. What is served must be of this namespace alone.
func namespaceOf(r *http.Request) (string, *Problem) {
	if namespace := r.PathValue("namespace"); namespace != "" {
		return namespace, nil
	}
	query := r.URL.Query()
	if len(query["namespace"]) > 1 || len(query["broker"]) > 1 {
		return "", problemf(http.StatusBadRequest, "a parameter is given twice")
	}
	namespace, broker := query.Get("namespace"), query.Get("broker")
	if broker == "" {
		return namespace, nil
	}
	of, name, ok := strings.Cut(broker, "/")
	switch {
	case !ok || of == "" || name == "":
		return "", problemf(http.StatusBadRequest, "%q is no Broker", broker).hint("write NAMESPACE/BROKER")
	case namespace != "" && of != namespace:
		return "", problemf(http.StatusBadRequest, "the Broker %s is not in namespace %s", broker, namespace).hint("leave out one of them")
	}
	return of, nil
}

// inNamespace says whether a Broker, given as namespace/name, is in the namespace; every one is in "".
func inNamespace(broker, namespace string) bool {
	return namespace == "" || strings.HasPrefix(broker, namespace+"/")
}

// Guard serves requests of those who may make them.
type Guard struct {
	// Access decides; nil has everybody served.
	Access Access
	// Recheck is the time between two looks whether a request that takes long is still permitted; default a minute.
	Recheck time.Duration
}

// Protect has h serve those who have the right in all namespaces.
func (g Guard) Protect(right Right, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, Action{Right: right}, h) }
}

func (g Guard) serve(w http.ResponseWriter, r *http.Request, do Action, serve http.HandlerFunc) {
	if g.Access == nil {
		serve(w, r)
		return
	}
	token := bearer(r)
	user, err := g.Access.Allow(r.Context(), token, do)
	if err != nil {
		p := refusedBy(err)
		if p.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		writeProblem(w, p)
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), userKey{}, user))
	defer cancel(nil)
	go g.watch(ctx, cancel, token, do)
	serve(w, r.WithContext(ctx))
}

// watch ends the request when its right is taken away. That it cannot be found out is no reason to.
func (g Guard) watch(ctx context.Context, cancel context.CancelCauseFunc, token string, do Action) {
	tick := time.NewTicker(cmp.Or(g.Recheck, defaultRecheck))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := g.Access.Allow(ctx, token, do)
		if denied := (*Denied)(nil); errors.Is(err, ErrUnauthenticated) || errors.As(err, &denied) {
			cancel(refusedBy(err))
			return
		}
	}
}

// bearer returns the token of a request (RFC 6750, section 2.1); empty if there is none.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func refusedBy(err error) *Problem {
	var denied *Denied
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return problemf(http.StatusUnauthorized, "%v", err).hint("send a token of the cluster's as Authorization: Bearer TOKEN, as the command millrace does")
	case !errors.As(err, &denied):
		return problemf(http.StatusServiceUnavailable, "it cannot be found out now who you are and what you may do: %v", err).hint("run it again")
	case denied.Action.Namespace == "":
		return problemf(http.StatusForbidden, "%v", err).hint("name one namespace, or have somebody bind a role with this right, see docs/install.md")
	default:
		return problemf(http.StatusForbidden, "%v", err).hint("have somebody bind a role with this right in that namespace, see docs/install.md")
	}
}

type userKey struct{}

// userOf is who made the request of the context; empty if nobody was asked.
func userOf(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}
