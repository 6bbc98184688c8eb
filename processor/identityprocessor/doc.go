// Package identityprocessor completes the identity of spans (organisation, user, request) from
// their nearest identified ancestor in the same trace. Start reading at processor.go.
package identityprocessor

//go:generate mdatagen metadata.yaml
