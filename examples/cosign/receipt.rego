# cosign verify-attestation --policy receipt.rego: the receipt passed, has not ended, and is for this environment.
# Without it, cosign accepts every receipt that the key signed: also one that FAILED or has ended.
# Ask for the type of the environment, --type urn:dockwarden:receipt:v1:production: cosign refuses an image if any
# attestation of the type does not meet the policy, and receipts for all environments have the type of SLSA.
package signature

environment := "production"

types := {"https://slsa.dev/verification_summary/v1", sprintf("urn:dockwarden:receipt:v1:%v", [environment])}

default allow = false

allow {
	types[input.predicateType]
	input.predicate.verificationResult == "PASSED"
	input.predicate.dockwarden_environment == environment
	time.parse_rfc3339_ns(input.predicate.dockwarden_validUntil) > time.now_ns()
}

deny[msg] {
	input.predicate.verificationResult != "PASSED"
	msg := sprintf("the receipt does not pass: the result is %v", [input.predicate.verificationResult])
}

deny[msg] {
	input.predicate.dockwarden_environment != environment
	msg := sprintf("the receipt is for the environment %q, not %q", [input.predicate.dockwarden_environment, environment])
}

deny[msg] {
	time.parse_rfc3339_ns(input.predicate.dockwarden_validUntil) <= time.now_ns()
	msg := sprintf("the receipt ended at %v", [input.predicate.dockwarden_validUntil])
}
