// Package delivery makes one attempt to deliver an event over HTTP, says what its result means, and says when to try
// again.
//
// It is made of three parts that know nothing of each other's insides:
//
//   - [Sender] does the I/O: one POST, one [Result]. It never retries, follows no redirect, and dials only addresses
//     that a subscriber may have (see [Options]).
//   - [Classify] and [Decide] are pure functions from a result and a [Policy] to what happens next.
//   - [DeadLetter] makes the event that a dead letter sink receives.
//
// Nothing here touches the store. The caller keeps count of the attempts, waits, stores replies and dead letters, and
// settles the event. The rules are those of the Knative Eventing data plane specification; where it is silent, the
// documentation of the function concerned says what was chosen and why.
package delivery
