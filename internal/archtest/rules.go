package archtest

// Millrace returns the import rules of this module. In one line:
//
//	cmd -> internal/cmdline -> internal/app -> {broker, dispatch, source} -> {trigger, delivery, stream} -> cel -> {event, api}
func Millrace() Rules {
	return Rules{
		Module:   "millrace.dev",
		Layers:   layers(),
		Confined: confined(),
		Frugal:   frugal(),
		Banned:   banned(),
		Lean:     lean(),
		Exempt:   []string{"test", "internal/archtest"},
	}
}

func layers() []Layer {
	return []Layer{
		{
			Path: "api",
			Why:  "the API types are what all else is built on, and what other programs import to read and write our objects",
		},
		{
			Path: "pkg/event",
			Why:  "the event model is what all else is built on",
		},
		{
			Path: "pkg/observe",
			May:  []string{"pkg/event"},
			Why:  "who tells of events and who watches them meet here, and know nothing of each other",
		},
		{
			Path: "pkg/cel",
			May:  []string{"api", "pkg/event"},
			Why:  "an expression sees an event and nothing else, so that evaluation stays a pure function",
		},
		{
			Path: "pkg/trigger",
			May:  []string{"api", "pkg/event", "pkg/cel"},
			Why:  "matching is pure: it knows events and filters, neither the store nor deliveries",
		},
		{
			Path: "pkg/delivery",
			May:  []string{"api", "pkg/event"},
			Why:  "a delivery attempt knows one event and one URL; who is owed it and where it is kept is for pkg/dispatch",
		},
		{
			Path: "pkg/journal",
			May:  []string{"pkg/event", "pkg/observe"},
			Why:  "the journal is told what happens, and hands blocks to a store; it knows neither how events are matched nor NATS",
		},
		{
			Path: "pkg/stream",
			May:  []string{"api", "pkg/event", "pkg/journal", "pkg/observe"},
			Why:  "the store keeps events and knows neither filters nor deliveries",
		},
		{
			Path: "pkg/broker",
			May:  []string{"api", "pkg/event", "pkg/observe", "pkg/stream"},
			Why:  "the ingress admits and stores events; it must go on doing so whatever the Triggers are, so it knows none",
		},
		{
			Path: "pkg/dispatch",
			May:  []string{"api", "pkg/event", "pkg/observe", "pkg/cel", "pkg/trigger", "pkg/delivery", "pkg/stream"},
			Why:  "the ingress and the filter are separate programs that meet only in the store",
		},
		{
			Path: "pkg/source",
			May:  []string{"api", "pkg/event", "pkg/observe", "pkg/delivery", "pkg/stream"},
			Why:  "a source hands events to a sink or the store like any other producer",
		},
		{
			Path: "internal/resolve",
			May:  []string{"api"},
			Why:  "what a status says follows from objects and addresses alone, on a laptop as in a cluster",
		},
		{
			Path: "internal/controller",
			May:  []string{"api", "pkg/event", "pkg/cel", "pkg/trigger", "pkg/delivery", "pkg/stream", "internal/loglevel", "internal/resolve"},
			Why:  "the control plane checks what the data plane loads, but runs no part of it",
		},
		{
			Path:   "internal",
			May:    []string{"api", "pkg", "internal"},
			MayNot: []string{"internal/app", "internal/cmdline"},
			Why:    "internal/app composes the other packages; none of them may know how they are put together",
		},
		{
			Path:   "internal/app",
			May:    []string{"api", "pkg", "internal"},
			MayNot: []string{"internal/cmdline", "internal/cli", "internal/devserver"},
			Why:    "a program's flags and signals are the business of its main alone, and only `millrace dev` brings a server along",
		},
		{
			Path: "internal/cmdline",
			May:  []string{"api", "pkg", "internal"},
			Why:  "it is what the programs of cmd have in common",
		},
		cliPart("cluster"), cliPart("display"), cliPart("eventfile"), cliPart("sender"), cliPart("terminal"),
		{
			Path: "internal/cli",
			May:  []string{"api", "pkg", "internal"},
			Why:  "it is the program millrace, composed of what the others offer",
		},
		{
			Path: "cmd",
			May:  []string{"api", "pkg", "internal"},
			Why:  "a program is put together from what api, pkg and internal offer",
		},
		{
			Path: "examples",
			Why:  "an example shows what others would write, who have nothing of ours but what is served",
		},
	}
}

// cliPart is a package below internal/cli: a part that the commands use.
func cliPart(name string) Layer {
	return Layer{
		Path:   "internal/cli/" + name,
		May:    []string{"api", "pkg", "internal"},
		MayNot: []string{"internal/app", "internal/cmdline"},
		Why:    "the commands of internal/cli compose their parts; none of these may know how they are put together",
	}
}

func confined() []Confined {
	return []Confined{
		{
			Library: "github.com/nats-io/nats.go",
			To:      []string{"pkg/stream"},
			Why:     "pkg/stream alone speaks to NATS, so that what we ask of the store can be read, and replaced, in one place",
		},
		{
			Library: "github.com/nats-io/nats-server",
			To:      []string{"internal/devserver"},
			Why:     "a server inside the program is for `millrace dev` and tests; the cluster's programs must not carry one",
		},
		{
			Library: "github.com/google/cel-go",
			To:      []string{"pkg/cel"},
			Why:     "pkg/cel puts the bounds on expressions; a second way to evaluate them would be without",
		},
		{
			Library: "github.com/cloudevents/sdk-go",
			To:      []string{"pkg/trigger", "internal/cli", "cmd/millrace"},
			Why:     "pkg/event is our event model; the SDK's rewrites times. It serves CESQL, helper commands and tests",
		},
		{
			Library: "github.com/twmb/franz-go",
			To:      []string{"pkg/source/kafka", "examples"},
			Why:     "pkg/source/kafka alone speaks to Kafka; what it offers to others are events. Examples write what it reads",
		},
		{
			Library: "github.com/apache/rocketmq-clients",
			To:      []string{"pkg/source/rocketmq"},
			Why:     "pkg/source/rocketmq alone speaks to RocketMQ, and uses of the library only the protocol's stubs",
		},
		{
			Library: "sigs.k8s.io/controller-runtime",
			To:      []string{"internal/controller", "cmd/broker-controller"},
			Why:     "it is what a control plane is built on; the data plane runs without a cluster, and reads two kinds where there is one",
		},
		{
			Library: "k8s.io/client-go",
			To:      []string{"internal/objects/kube", "internal/controller", "internal/access", "internal/cli/cluster"},
			Why:     "only who speaks to an API server needs its client",
		},
	}
}

func frugal() []Frugal {
	return []Frugal{
		{
			Path: "api",
			May:  []string{"k8s.io/apimachinery", "k8s.io/utils", "github.com/sosodev/duration"},
			Why:  "programs that import the API types get its dependencies too",
		},
		{
			Path: "pkg/event",
			Why:  "the event model needs the standard library only",
		},
	}
}

func banned() []Banned {
	return []Banned{
		{
			Library: "cel.dev/cel-go",
			Why:     "it is the later path of github.com/google/cel-go: a program with both has two copies of CEL",
		},
		{
			Library: "knative.dev",
			Why:     "the API types are our own, so that neither Knative's versions nor its dependencies become ours",
		},
	}
}

func lean() []Lean {
	programs := []string{"cmd/broker-ingress", "cmd/broker-filter", "cmd/broker-source", "cmd/millrace"}
	return []Lean{
		{
			Library:  "k8s.io/api/core", // client-go's forwarder of ports brings it into cmd/millrace, without registering a kind
			Programs: programs[:3],
			Why:      "all kinds of Kubernetes take 10 MB of memory in a program that reads ours alone",
		},
		{
			Library:  "k8s.io/client-go/kubernetes",
			Programs: programs,
			Why:      "it registers all kinds of Kubernetes, which takes 10 MB of memory in a program that reads ours alone",
		},
		{
			Library:  "sigs.k8s.io/controller-runtime",
			Programs: programs,
			Why:      "it brings all kinds of Kubernetes along",
		},
	}
}
