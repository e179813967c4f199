// Selects the rows that the step returns.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void output_rows(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  for (std::size_t i = 0; i < step.output_count; ++i)
    __builtin_memcpy(out.row(i), x.row(static_cast<std::size_t>(step.outputs[i])),
                     x.width * sizeof(float));
}
