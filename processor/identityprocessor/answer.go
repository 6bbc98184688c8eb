package identityprocessor

import (
	"errors"
	"reflect"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// answer is what an error of the next consumer says about the spans that it was given.
type answer struct {
	err    error         // as the sender is to see it
	final  bool          // none of them will ever be taken
	partly bool          // only part of them was refused
	part   ptrace.Traces // that part
}

var permanentType = reflect.TypeOf(consumererror.NewPermanent(nil))

// answerOf reads an error from the outside in. Where it joins those of several consumers, one says
// nothing about what another was given: unless all refuse for good, all spans count as refused, and
// are to be sent again.
func answerOf(err error) answer {
	for at := err; at != nil; at = errors.Unwrap(at) {
		if reflect.TypeOf(at) == permanentType {
			return answer{err: err, final: true}
		}
		if partial, ok := at.(consumererror.Traces); ok {
			return answer{err: err, partly: true, part: partial.Data()}
		}
		if joined, ok := at.(interface{ Unwrap() []error }); ok {
			return answerOfAll(err, joined.Unwrap())
		}
	}
	return answer{err: err}
}

func answerOfAll(err error, branches []error) answer {
	if len(branches) == 1 {
		a := answerOf(branches[0])
		a.err = err
		return a
	}
	for _, branch := range branches {
		if !answerOf(branch).final {
			return answer{err: retryable{err}}
		}
	}
	return answer{err: err, final: len(branches) > 0}
}

// retryable is an error without what it wraps: something in there says "permanent", or names a part.
type retryable struct{ error }
