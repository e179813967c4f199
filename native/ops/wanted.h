// The rows whose result the step asks for.
static void wanted(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  for (std::size_t i = 0; i < step.wanted; ++i)
    __builtin_memcpy(out.row(i), x.row(static_cast<std::size_t>(step.outputs[i])),
                     x.width * sizeof(float));
}
