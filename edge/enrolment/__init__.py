"""Teaching a classifier new classes on the device, from a few pictures; see docs/enrolment.md."""
