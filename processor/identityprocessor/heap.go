package identityprocessor

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// What held spans take on the heap besides the bytes of their texts, which their size as OTLP protobuf
// stands for. A test holds these figures to what is measured.
const (
	heapOfHold      = 520 // a span without anything, and what is kept about it
	heapOfOrigin    = 280
	heapOfAttribute = 64
	heapOfEvent     = 80
	heapOfLink      = 96
	heapOfValue     = 28 // in a list
)

// heapIn is what the parts of a span take.
func heapIn(span ptrace.Span) int64 {
	sum := heapOf(span.Attributes())
	for _, event := range span.Events().All() {
		sum += heapOfEvent + heapOf(event.Attributes())
	}
	for _, link := range span.Links().All() {
		sum += heapOfLink + heapOf(link.Attributes())
	}
	return sum
}

func heapOf(attributes pcommon.Map) int64 {
	sum := int64(attributes.Len()) * heapOfAttribute
	for _, value := range attributes.All() {
		sum += heapOfNested(value)
	}
	return sum
}

func heapOfNested(value pcommon.Value) (sum int64) {
	switch value.Type() {
	case pcommon.ValueTypeMap:
		return heapOf(value.Map())
	case pcommon.ValueTypeSlice:
		for _, element := range value.Slice().All() {
			sum += heapOfValue + heapOfNested(element)
		}
	}
	return sum
}
