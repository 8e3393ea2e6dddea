package delivery_test

import (
	"errors"
	"fmt"
	"time"

	"millrace.dev/pkg/delivery"
)

func ExamplePolicy_Delay() {
	policy := delivery.Policy{BackoffDelay: 200 * time.Millisecond, BackoffMax: 2 * time.Second}
	for retry := 1; retry <= 5; retry++ {
		fmt.Println(policy.Delay(retry, 0.5)) // 0.5 is the middle of the jitter.
	}
	fmt.Println(policy.Delay(1000, 0), "to", policy.Delay(1000, 1))
	// Output:
	// 200ms
	// 400ms
	// 800ms
	// 1.6s
	// 1.9s
	// 1.8s to 2s
}

func ExampleDecide() {
	policy := delivery.Policy{Retries: 1, BackoffDelay: time.Second}
	show := func(attempt int, r delivery.Result) {
		d := delivery.Decide(policy, attempt, r, 0.5)
		fmt.Printf("%v after %v, code %d, reason %q\n", d.Action, d.Delay, d.Code, d.Reason)
	}
	show(1, delivery.Result{Status: 202})
	show(1, delivery.Result{Status: 503})
	show(2, delivery.Result{Err: errors.New("connection refused")})
	show(1, delivery.Result{Status: 400})
	// Output:
	// done after 0s, code 0, reason ""
	// retry after 1s, code 0, reason "status"
	// give_up after 0s, code 500, reason "network"
	// give_up after 0s, code 400, reason "status"
}
