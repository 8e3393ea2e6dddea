package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// account is where the events of one role ended.
type account struct {
	Role string
	// Matched events were accepted and match; each is one of the next four.
	Matched, Delivered, DeadLettered, Parked, Lost int
	// Requests came to the subscriber. Repeated of them came after it had taken the event.
	Requests, Repeated int
	// DeadLettersRepeated and ParkedRepeated count copies after the first.
	DeadLettersRepeated, ParkedRepeated int
}

// duplicates are all copies after the first that was taken.
func (a account) duplicates() int { return a.Repeated + a.DeadLettersRepeated + a.ParkedRepeated }

// verdict is what the books say.
type verdict struct {
	Accounts []account
	// Posted events; Accepted ones were answered with 202, Unknown ones not. Some of the unknown were Stored all the
	// same, which the broker may do: it did not say no.
	Posted, Accepted, Unknown, UnknownStored int
	Answers                                  map[int]int // requests of producers by status; 0 for no answer
	// Lost, Duplicates are sums over the roles.
	Lost, Duplicates int
	// Mistakes are what must not be, whatever breaks.
	Mistakes []string
	// DuplicatesBy counts duplicates by what broke between two copies, or shortly before the first; see [culprit].
	DuplicatesBy map[string]int
	Faults       map[string]int
	// LongestAckGap and LongestDeliveryGap are the longest times without a 202 and without anything delivered while
	// events were posted.
	LongestAckGap, LongestDeliveryGap time.Duration
}

// fate is what became of one event at one role.
type fate struct {
	requests, taken, dead, parked int
	dates                         []time.Time // when it was taken or dead-lettered
}

// judge compares the books with the plan. It is a pure function.
type judge struct {
	plan     *plan
	books    *books
	accepted map[string]bool
	posted   map[string]bool
	fates    map[string]map[string]*fate // by role and event id
	v        *verdict
}

func newJudge(p *plan, b *books) *judge {
	j := &judge{
		plan: p, books: b, accepted: map[string]bool{}, posted: map[string]bool{}, fates: map[string]map[string]*fate{},
		v: &verdict{Answers: map[int]int{}, DuplicatesBy: map[string]int{}, Faults: map[string]int{}},
	}
	for _, r := range p.roles {
		j.fates[r.name] = map[string]*fate{}
	}
	return j
}

func judgeBooks(p *plan, b *books) *verdict {
	j := newJudge(p, b)
	j.readProducers()
	j.readSubscribers()
	j.readParked()
	for _, f := range b.Faults {
		j.v.Faults[f.Kind]++
	}
	for _, r := range p.roles {
		j.account(r)
	}
	j.countUnknown()
	j.gaps()
	slices.Sort(j.v.Mistakes)
	return j.v
}

func (j *judge) mistake(format string, args ...any) {
	j.v.Mistakes = append(j.v.Mistakes, fmt.Sprintf(format, args...))
}

func (j *judge) readProducers() {
	for _, p := range j.books.Posted {
		j.v.Posted += len(p.IDs)
		for _, id := range p.IDs {
			j.posted[id] = true
		}
	}
	for _, a := range j.books.Answered {
		j.v.Answers[a.Status]++
		for _, id := range a.IDs {
			j.accepted[id] = j.accepted[id] || a.Status == accepted
		}
	}
	for _, ok := range j.accepted {
		if ok {
			j.v.Accepted++
		}
	}
	j.v.Unknown = j.v.Posted - j.v.Accepted
}

// fate returns the fate of an event at a role, or nil if the event has no business there.
func (j *judge) fate(role, id string) *fate {
	r := j.plan.named[role]
	original := strings.TrimPrefix(id, replyPrefix)
	number, ok := numberOf(original)
	if r == nil || !ok || !j.posted[original] {
		j.mistake("%s got %q, which nobody sent", role, id)
		return nil
	}
	heard := original != id
	if heard != r.hears || !heard && !r.matches(number) {
		j.mistake("%s got %s, which does not match its filter", role, id)
		return nil
	}
	f := j.fates[role][id]
	if f == nil {
		f = &fate{}
		j.fates[role][id] = f
	}
	return f
}

func (j *judge) readSubscribers() {
	for _, r := range j.books.Received {
		role := r.Place
		if role == sinkName {
			role = r.Trigger
		}
		f := j.fate(role, r.ID)
		if f == nil {
			continue
		}
		if r.Place == sinkName {
			j.deadLetter(r, f)
			continue
		}
		f.requests++
		if r.Status/100 == 2 {
			f.taken++
			f.dates = append(f.dates, r.At)
		}
	}
}

func (j *judge) deadLetter(r received, f *fate) {
	if r.Status/100 != 2 {
		return
	}
	f.dead++
	f.dates = append(f.dates, r.At)
	role := j.plan.named[r.Trigger]
	s := j.plan.script(role, r.ID)
	want := len(s)
	if !rejected(s.last().status) {
		want = role.retries + 1
	}
	if r.Code != s.last().status || r.Attempts != want {
		j.mistake("the dead letter of %s for %s has code %d after %d attempts, want %d after %d",
			r.ID, role.name, r.Code, r.Attempts, s.last().status, want)
	}
}

func (j *judge) readParked() {
	for _, p := range j.books.Parked {
		for _, r := range j.plan.roles {
			if !r.sink { // the one role whose events can be parked
				if f := j.fate(r.name, p.ID); f != nil {
					f.parked++
				}
			}
		}
	}
}

// account goes through all events that match a role.
func (j *judge) account(r *role) {
	a := account{Role: r.name}
	for id := range j.owed(r) {
		f := j.fates[r.name][id]
		a.Matched++
		switch {
		case f == nil:
			a.Lost++
			j.mistake("%s is lost for %s: it was never attempted", id, r.name)
		case f.taken > 0:
			a.Delivered++
		case f.dead > 0:
			a.DeadLettered++
		case f.parked > 0:
			a.Parked++
		default:
			a.Lost++
			j.mistake("%s is lost for %s after %d requests", id, r.name, f.requests)
		}
	}
	for id, f := range j.fates[r.name] {
		a.Requests += f.requests
		a.Repeated += max(0, f.taken-1)
		a.DeadLettersRepeated += max(0, f.dead-1)
		a.ParkedRepeated += max(0, f.parked-1)
		j.examine(r, id, f)
		j.attribute(f)
	}
	j.v.Lost += a.Lost
	j.v.Duplicates += a.duplicates()
	j.v.Accounts = append(j.v.Accounts, a)
}

// owed are the ids of the events that must have met a fate at a role: accepted ones that match, and for a role that hears
// replies one reply to each event that a replying subscriber took.
func (j *judge) owed(r *role) map[string]bool {
	ids := map[string]bool{}
	if r.hears {
		for _, asking := range j.plan.roles {
			for id, f := range j.fates[asking.name] {
				if f.taken > 0 && j.plan.script(asking, id).last().deed == reply {
					ids[replyPrefix+id] = true
				}
			}
		}
		return ids
	}
	for id, ok := range j.accepted {
		if number, _ := numberOf(id); ok && r.matches(number) {
			ids[id] = true
		}
	}
	return ids
}

// examine looks for what is wrong with a fate even if it is one.
func (j *judge) examine(r *role, id string, f *fate) {
	s := j.plan.script(r, id)
	givenUp := f.dead+f.parked > 0
	if s.last().ok() && givenUp {
		j.mistake("%s was given up for %s, whose subscriber takes it at request %d; %d were made", id, r.name, len(s), f.requests)
	}
	least := len(s)
	if !s.last().ok() && !rejected(s.last().status) {
		least = r.retries + 1
	}
	if givenUp && f.requests < least {
		j.mistake("%s was given up for %s after %d requests, want %d", id, r.name, f.requests, least)
	}
	if len(j.books.Faults) == 0 && f.requests > least {
		j.mistake("%s was sent to %s %d times although nothing was broken, want %d", id, r.name, f.requests, least)
	}
}

// attribute counts the copies after the first of a fate to their culprits.
func (j *judge) attribute(f *fate) {
	slices.SortFunc(f.dates, time.Time.Compare)
	for i := 1; i < len(f.dates); i++ {
		j.v.DuplicatesBy[culprit(j.books.Faults, f.dates[i-1], f.dates[i])]++
	}
}

// settleLag is how long after an event was taken its ack may be under way, so that a fault can still undo it.
const settleLag = 5 * time.Second

// culprit is the kind of fault that explains best why what was taken at first came again: a kill before others, and of
// equals the one nearest to the first copy. It is a guess where several faults lie between the two.
func culprit(faults []fault, first, again time.Time) string {
	best, kind := 0, "no fault"
	for _, f := range faults {
		if f.From.After(again) || f.Until.Before(first.Add(-settleLag)) {
			continue
		}
		rank := 1
		if strings.HasPrefix(f.Kind, "kill") {
			rank = 2
		}
		if rank > best {
			best, kind = rank, f.Kind
		}
	}
	return kind
}

func (j *judge) countUnknown() {
	stored := map[string]bool{}
	for _, fates := range j.fates {
		for id := range fates {
			if original := strings.TrimPrefix(id, replyPrefix); !j.accepted[original] {
				stored[original] = true
			}
		}
	}
	j.v.UnknownStored = len(stored)
}

// gaps finds the longest pauses while producers were at work.
func (j *judge) gaps() {
	var acks, deliveries []time.Time
	for _, a := range j.books.Answered {
		if a.Status == accepted {
			acks = append(acks, a.At)
		}
	}
	if len(acks) == 0 {
		return
	}
	for _, r := range j.books.Received {
		if r.Status/100 == 2 && !r.At.After(acks[len(acks)-1]) {
			deliveries = append(deliveries, r.At)
		}
	}
	j.v.LongestAckGap, j.v.LongestDeliveryGap = longestGap(acks), longestGap(deliveries)
}

func longestGap(dates []time.Time) (longest time.Duration) {
	for i := 1; i < len(dates); i++ {
		longest = max(longest, dates[i].Sub(dates[i-1]))
	}
	return longest
}
