package stream

// Rest is rest.
var Rest = rest
