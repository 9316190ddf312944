# The scripts in ci/ do the work and need no make; this only names them.
.PHONY: demo test check export lab docs scenarios soak benchmarks
demo test check export lab docs scenarios soak benchmarks:
	@ci/$@
