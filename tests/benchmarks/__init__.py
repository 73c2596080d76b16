"""The benchmarks' own rules: how runs are paired, summed up, judged and written down."""
